"""A package of parts by strangers, installed for a test."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ssl_dc.plugins.registry import registry

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def strangers_installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The package beside this file is installed, as far as the registry can tell."""
    site = tmp_path_factory.mktemp("site")
    info = site / "strangers-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: strangers\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[ssl_dc]\nstrangers = strangers\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(site))
        patch.syspath_prepend(str(HERE))
        registry.cache_clear()
        yield
    registry.cache_clear()
    for module in [name for name in sys.modules if name.partition(".")[0] == "strangers"]:
        del sys.modules[module]
