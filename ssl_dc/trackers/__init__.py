"""Trackers, one file each. They receive the metrics of a run in addition to the run's own file."""

from __future__ import annotations

from ssl_dc.plugins.hookspecs import hookimpl
from ssl_dc.plugins.parts import Part

ACCELERATED = {
    "aim": ("AimOptions", "Aim, into the run's folder."),
    "clearml": ("ClearMLOptions", "ClearML."),
    "comet_ml": ("CometOptions", "Comet."),
    "dvclive": ("DVCLiveOptions", "DVCLive, into the run's folder."),
    "mlflow": ("MLflowOptions", "MLflow, at MLFLOW_TRACKING_URI."),
    "swanlab": ("SwanLabOptions", "SwanLab."),
    "trackio": ("TrackioOptions", "Trackio."),
    "wandb": ("WandBOptions", "Weights & Biases; WANDB_MODE=offline keeps it in the run's folder."),
}
"""The trackers that Accelerate knows, by its names for them: the class of their options, and what they are."""


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
        *(
            Part(
                name=name,
                target="ssl_dc.trackers.accelerated:Accelerated",
                options=f"ssl_dc.trackers.options:{options}",
                summary=summary,
            )
            for name, (options, summary) in ACCELERATED.items()
        ),
    ]
