"""Trackers: where the metrics of a run go, besides its own file; one file each."""

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
