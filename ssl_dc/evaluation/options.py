"""Options of the built-in evaluation protocols; each is an option of ``ssl-dc evaluate`` too."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator

from ssl_dc.plugins.options import ProtocolOptions


class KNNOptions(ProtocolOptions):
    """Options of the protocol ``knn``."""

    name: str = "knn"
    k: int = Field(1, ge=1, description="Neighbours asked.")
    metric: Literal["euclidean", "cosine"] = Field("euclidean", description="How near is measured.")


class LinearOptions(ProtocolOptions):
    """Options of the protocol ``linear``."""

    name: str = "linear"
    seeds: int = Field(5, ge=1, description="Classifiers trained on each route.")
    epochs: int = Field(100, ge=1, description="Passes over the training images.")
    augment: bool = Field(
        False,
        description="The encoder sees new random crops and flips in each epoch, as in the paper; else features are computed"
        " once.",
    )
    crop_scale: tuple[float, float] | None = Field(
        None, description="With augment: least and largest share of an image that a crop shows; 0.08 1 unless told."
    )

    @field_validator("crop_scale")
    @classmethod
    def _in_order(cls, scale: tuple[float, float] | None) -> tuple[float, float] | None:
        if scale is not None and not 0 < scale[0] <= scale[1] <= 1:
            raise ValueError("must be two shares with 0 < least <= largest <= 1")
        return scale


class TransferOptions(LinearOptions):
    """Options of the protocol ``transfer``."""

    name: str = "transfer"
    to: str = Field(description="The other data set.")
    to_root: Path | None = Field(None, description="Folder that holds it.")
    to_limit: int | None = Field(
        None, ge=2, description="Use only this many of its training images, the same number of each class."
    )
    to_set: dict[str, Any] | None = Field(None, description="Other options of it, such as image_column=img.")


class ProjectionOptions(ProtocolOptions):
    """Options of the protocols that lay features out in the plane."""

    picture: ClassVar[Literal["never", "asked", "always"]] = "always"

    points: int = Field(2000, ge=10, description="Images drawn at most.")


class UMAPOptions(ProjectionOptions):
    """Options of the protocol ``umap``."""

    name: str = "umap"


class TSNEOptions(ProjectionOptions):
    """Options of the protocol ``tsne``."""

    name: str = "tsne"


class GatesOptions(ProtocolOptions):
    """Options of the protocol ``gates``, which has none."""

    picture: ClassVar[Literal["never", "asked", "always"]] = "asked"

    name: str = "gates"
