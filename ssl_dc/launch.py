"""Which process of a launch this is, known before torch is imported."""

from __future__ import annotations

import os


def is_first_process() -> bool:
    """Whether this is the process that talks to the user: the only one, or rank 0 of a launch."""
    return os.environ.get("RANK", "0") in ("", "0")
