"""Options of the built-in backbones."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from ssl_dc.plugins.options import PartOptions

StemName = Literal["imagenet", "cifar", "strided"]


class ResNetOptions(PartOptions):
    """Options that all ResNets share."""

    compiles: ClassVar[bool] = True

    width: int = Field(
        64, ge=4, le=4096, multiple_of=4, description="Channels of the first stage; each next one has twice as many."
    )
    stem: StemName = Field(
        "imagenet",
        description="First layers: 'imagenet' 7x7 stride 2 and max-pool, 'cifar' 3x3 stride 1, 'strided' 3x3 stride 2.",
    )
    stem_padding: int | None = Field(
        None,
        ge=0,
        le=32,
        description="Padding of the stem's convolution; by default the stem's own: 3 for imagenet, 2 for cifar as in the "
        "published code (other libraries: 1), 1 for strided.",
    )


class ResNet18Options(ResNetOptions):
    """Options of the backbone ``resnet18``."""

    name: str = "resnet18"


class ResNet34Options(ResNetOptions):
    """Options of the backbone ``resnet34``."""

    name: str = "resnet34"


class ResNet50Options(ResNetOptions):
    """Options of the backbone ``resnet50``."""

    name: str = "resnet50"
