"""Options of the built-in backbones."""

from __future__ import annotations

from typing import ClassVar, Literal, NamedTuple

from pydantic import Field, ValidationInfo, field_validator

from ssl_dc.plugins.options import PartOptions

StemName = Literal["imagenet", "cifar", "strided"]


class Stem(NamedTuple):
    """The first convolution, and whether a 3x3 stride-2 max-pool follows."""

    kernel: int
    stride: int
    padding: int
    pool: bool


STEMS = {
    "imagenet": Stem(kernel=7, stride=2, padding=3, pool=True),
    "cifar": Stem(kernel=3, stride=1, padding=2, pool=False),
    "strided": Stem(kernel=3, stride=2, padding=1, pool=False),
}


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
        le=6,
        description="Padding of the stem's convolution; by default the stem's own: 3 for imagenet, 2 for cifar as in the "
        "published code (other libraries: 1), 1 for strided. At most 6 for imagenet, 2 for the others.",
    )

    @field_validator("stem_padding")
    @classmethod
    def _sees_the_image(cls, padding: int | None, info: ValidationInfo) -> int | None:
        """Refuse a padding by which the convolution gives pixels that see nothing of the image."""
        stem = STEMS.get(info.data.get("stem", ""))
        if padding is not None and stem is not None and padding >= stem.kernel:
            raise ValueError(f"must be less than the {stem.kernel} pixels of the kernel of the stem {info.data['stem']!r}")
        return padding


class ResNet18Options(ResNetOptions):
    """Options of the backbone ``resnet18``."""

    name: str = "resnet18"


class ResNet34Options(ResNetOptions):
    """Options of the backbone ``resnet34``."""

    name: str = "resnet34"


class ResNet50Options(ResNetOptions):
    """Options of the backbone ``resnet50``."""

    name: str = "resnet50"
