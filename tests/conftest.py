"""What tests of all rooms share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

# the networks of the tests are so small that a second thread only waits; on a busy machine it costs tenfold
torch.set_num_threads(1)

REPOSITORY = Path(__file__).parent.parent


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real images (SSL_DC_TEST_DATA, or ../shared/data beside the repository), or a skip."""
    folder = Path(os.environ.get("SSL_DC_TEST_DATA", REPOSITORY.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"real images are not at {folder}; set SSL_DC_TEST_DATA to a folder that has them")
    return folder
