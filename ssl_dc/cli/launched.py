"""How a command begins: with the other processes of a launch, and with something to see."""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ssl_dc.progress.progress import Progress


def device_of_launch() -> str | None:
    """Join the other processes of the launch, if there are any; the device of this one."""
    if os.environ.get("WORLD_SIZE", "1") == "1":
        return None
    from ssl_dc.training.accelerator import make_accelerator

    return str(make_accelerator("no").device)


def progress_from_the_start(note: str = "") -> Progress:
    """Progress, shown from here on. The library is imported meanwhile, which takes seconds.

    Args:
        note: A message to show once, when training begins.
    """
    from ssl_dc.progress.progress import Progress
    from ssl_dc.trackers.base import phase

    progress = Progress(note)
    with phase([progress], "starting"):
        import_module("ssl_dc.api")
    return progress
