"""No tracker: metrics stay in the run's own file."""

from __future__ import annotations

from pathlib import Path

from ssl_dc.trackers.base import Watcher
from ssl_dc.trackers.options import NoTrackerOptions


class NoTracker(Watcher):
    """The tracker ``none``.

    Args:
        options: It has none.
        folder: The run's folder, which is not used.
    """

    def __init__(self, options: NoTrackerOptions, folder: Path) -> None:
        self.options, self.folder = options, folder
