"""Options of the built-in trackers."""

from __future__ import annotations

from ssl_dc.plugins.options import PartOptions


class NoTrackerOptions(PartOptions):
    """Options of the tracker ``none``, which has none."""

    name: str = "none"


class TensorBoardOptions(PartOptions):
    """Options of the tracker ``tensorboard``, which has none."""

    name: str = "tensorboard"
