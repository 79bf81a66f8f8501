"""Trackers, one file each. They receive the metrics of a run in addition to the run's own file."""

from __future__ import annotations

from ssl_dc.plugins.hookspecs import hookimpl
from ssl_dc.plugins.parts import Part


@hookimpl
def ssl_dc_trackers() -> list[Part]:
    """The built-in trackers."""
    return [
        Part(
            name="none",
            target="ssl_dc.trackers.none:NoTracker",
            options="ssl_dc.trackers.options:NoTrackerOptions",
            summary="Nowhere else.",
        ),
        Part(
            name="tensorboard",
            target="ssl_dc.trackers.tensorboard:TensorBoard",
            options="ssl_dc.trackers.options:TensorBoardOptions",
            summary="TensorBoard, into the run's folder.",
        ),
    ]
