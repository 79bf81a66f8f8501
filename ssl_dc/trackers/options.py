"""Options of the built-in trackers."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from ssl_dc.plugins.options import PartOptions


class NoTrackerOptions(PartOptions):
    """Options of the tracker ``none``, which has none."""

    name: str = "none"


class TensorBoardOptions(PartOptions):
    """Options of the tracker ``tensorboard``, which has none."""

    name: str = "tensorboard"


class AcceleratedOptions(PartOptions):
    """Options that the trackers of Accelerate's share."""

    project: str = Field("ssl-dc", min_length=1, description="Project or experiment of the tracker that the run goes to.")
    settings: dict[str, Any] = Field(
        {}, description="Further arguments with which the tracker's package starts a run, such as {mode: offline} of wandb."
    )


class AimOptions(AcceleratedOptions):
    """Options of the tracker ``aim``."""

    name: str = "aim"


class ClearMLOptions(AcceleratedOptions):
    """Options of the tracker ``clearml``."""

    name: str = "clearml"


class CometOptions(AcceleratedOptions):
    """Options of the tracker ``comet_ml``."""

    name: str = "comet_ml"


class DVCLiveOptions(AcceleratedOptions):
    """Options of the tracker ``dvclive``."""

    name: str = "dvclive"


class MLflowOptions(AcceleratedOptions):
    """Options of the tracker ``mlflow``."""

    name: str = "mlflow"


class SwanLabOptions(AcceleratedOptions):
    """Options of the tracker ``swanlab``."""

    name: str = "swanlab"


class TrackioOptions(AcceleratedOptions):
    """Options of the tracker ``trackio``."""

    name: str = "trackio"


class WandBOptions(AcceleratedOptions):
    """Options of the tracker ``wandb``."""

    name: str = "wandb"
