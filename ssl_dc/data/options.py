"""Options of the built-in data sets, with their recipes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import Field

from ssl_dc.plugins.options import Colour, DataOptions, PublishedSet

CIFAR10_MEAN: Colour = (0.4914, 0.4823, 0.4466)
CIFAR10_STD: Colour = (0.247, 0.243, 0.261)
CIFAR100_MEAN: Colour = (0.5071, 0.4865, 0.4409)
CIFAR100_STD: Colour = (0.2673, 0.2564, 0.2762)

_PAPER: Mapping[str, Any] = {
    "backbone.width": 64,
    "training.epochs": 500,
    "training.batch_size": 512,
    "optimizer.name": "lars",
    "optimizer.lr": 0.3,
}
"""The settings that the paper's runs on all data sets share (method section 1)."""


class DigitsOptions(DataOptions):
    """Options of the data set ``digits``; its recipe is small and quick."""

    notice: ClassVar[str] = (
        "No data set named: training on scikit-learn's handwritten digits. For your own images:"
        " --data folder --data-root DIR."
    )

    recipe: ClassVar[Mapping[str, Any]] = {
        "backbone.width": 16,
        "backbone.stem": "cifar",
        "objective.expander_width": 256,
        "training.epochs": 60,
        "training.batch_size": 128,
        "optimizer.name": "adamw",
        "optimizer.lr": 2e-3,
        "gating.noise": 0.0,
        "views.crop_scale": (0.7, 1.0),
        "views.jitter_p": 0.4,
        "views.flip_p": 0.0,
        "views.solarize_p": (0.0, 0.0),
    }
    published: ClassVar[PublishedSet | None] = PublishedSet(1437, 1437, 360, 8)

    name: str = "digits"
    image_size: int = Field(16, ge=8, le=1024, description="Side of the images; the digits are 8x8 and are enlarged.")
    mean: Colour = Field((0.305, 0.305, 0.305), description="Mean of the channels.")
    std: Colour = Field((0.376, 0.376, 0.376), description="Standard deviation of the channels.")


class Cifar10Options(DataOptions):
    """Options of the data set ``cifar10``; its recipe is the paper's."""

    recipe: ClassVar[Mapping[str, Any]] = {**_PAPER, "backbone.stem": "cifar", "views.blur_p": (0.0, 0.2)}
    published: ClassVar[PublishedSet | None] = PublishedSet(50_000, 50_000, 10_000, 32)

    name: str = "cifar10"
    image_size: int = Field(32, ge=8, le=1024, description="Side of the images.")
    mean: Colour = Field(CIFAR10_MEAN, description="Mean of the channels.")
    std: Colour = Field(CIFAR10_STD, description="Standard deviation of the channels.")


class Cifar100Options(DataOptions):
    """Options of the data set ``cifar100``; its recipe is the paper's."""

    recipe: ClassVar[Mapping[str, Any]] = Cifar10Options.recipe
    published: ClassVar[PublishedSet | None] = PublishedSet(50_000, 50_000, 10_000, 32)

    name: str = "cifar100"
    image_size: int = Field(32, ge=8, le=1024, description="Side of the images.")
    mean: Colour = Field(CIFAR100_MEAN, description="Mean of the channels.")
    std: Colour = Field(CIFAR100_STD, description="Standard deviation of the channels.")


class Stl10Options(DataOptions):
    """Options of the data set ``stl10``: pre-training on its unlabelled images; its recipe is the paper's."""

    recipe: ClassVar[Mapping[str, Any]] = {**_PAPER, "backbone.stem": "imagenet"}
    published: ClassVar[PublishedSet | None] = PublishedSet(100_000, 5_000, 8_000, 96)

    name: str = "stl10"
    image_size: int = Field(96, ge=8, le=1024, description="Side of the images.")
    mean: Colour = Field(CIFAR10_MEAN, description="Mean of the channels.")
    std: Colour = Field(CIFAR10_STD, description="Standard deviation of the channels.")


HoldOut = Annotated[
    float,
    Field(
        ge=0,
        le=0.5,
        description="Share of the training images that is held out where the data set holds none out: of each class, or"
        " of all images without labels (then at most 2,048, and none of fewer than 20).",
    ),
]


class FolderOptions(DataOptions):
    """Options of the data set ``folder``: one's own images.

    Its recipe is fitted to them and to the machine; the fixed one is the paper's for ImageNet-100.
    """

    recipe: ClassVar[Mapping[str, Any]] = {**_PAPER, "backbone.stem": "imagenet"}
    fitted: ClassVar[bool] = True

    name: str = "folder"
    hold_out: HoldOut = 0.2


class ColumnOptions(DataOptions):
    """Options of data sets that are tables with a column of images, in Hugging Face's convention.

    Their recipe is fitted to the images and to the machine; the fixed one is the paper's for ImageNet.
    """

    recipe: ClassVar[Mapping[str, Any]] = {**_PAPER, "backbone.stem": "imagenet"}
    fitted: ClassVar[bool] = True

    hold_out: HoldOut = 0.2
    image_column: str = Field("image", description="Column of structs {bytes, path}, or of bytes.")
    label_column: str = Field("label", description="Column of integer labels.")


class ParquetOptions(ColumnOptions):
    """Options of the data set ``parquet``: images in Hugging Face's parquet convention."""

    name: str = "parquet"
    stream: bool = Field(
        False,
        description="Read the images from disk when they are drawn, some row groups at a time, in place of all into memory:"
        " for files that do not fit. The order of training is then shuffled by row group and buffer.",
    )


class ArrowOptions(ColumnOptions):
    """Options of the data set ``arrow``: data sets saved by Hugging Face ``datasets``."""

    name: str = "arrow"


class WebDatasetOptions(DataOptions):
    """Options of the data set ``webdataset``: images in tar files, with the recipe of ``parquet``."""

    recipe: ClassVar[Mapping[str, Any]] = ColumnOptions.recipe
    fitted: ClassVar[bool] = True

    name: str = "webdataset"
    hold_out: HoldOut = 0.2
    picture: str | None = Field(
        None,
        pattern=r"^\w[\w.]*$",
        description="Ending of the members that are the images, such as jpg; not set, any ending of a picture.",
    )
    label: str = Field("cls", pattern=r"^\w[\w.]*$", description="Ending of the members that hold the labels, as numbers.")
