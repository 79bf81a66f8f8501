"""Options of the built-in augmentation recipes."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, field_validator

from ssl_dc.plugins.options import PartOptions
from ssl_dc.views.cropping import Crop

Probability = Annotated[float, Field(ge=0, le=1)]
Strength = Annotated[float, Field(ge=0)]


class StandardViewsOptions(PartOptions):
    """Options of the views ``standard``; the defaults are the paper's (method section 1)."""

    name: str = "standard"
    crop_scale: tuple[float, float] = Field(
        (0.2, 1.0), description="Smallest and largest share of the image's area in the crop of a global view."
    )
    global_count: int = Field(
        2, ge=1, description="If there are local views: how many of the views, the first ones, are global."
    )
    local_size: int | None = Field(
        None,
        ge=8,
        le=1024,
        description="Side of local views, in pixels: the small crops of multi-crop. Each view after the global ones is"
        " local. Not set, all views are global.",
    )
    local_scale: tuple[float, float] = Field(
        (0.05, 0.4), description="Smallest and largest share of the image's area in the crop of a local view."
    )
    brightness: Strength = Field(0.4, description="Strength of the colour jitter's brightness.")
    contrast: Strength = Field(0.4, description="Strength of its contrast.")
    saturation: Strength = Field(0.2, description="Strength of its saturation.")
    hue: float = Field(0.1, ge=0, le=0.5, description="Strength of its hue.")
    jitter_p: Probability = Field(0.8, description="Probability of colour jitter.")
    grayscale_p: Probability = Field(0.2, description="Probability of a grey image.")
    solarize_p: tuple[Probability, Probability] = Field(
        (0.1, 0.1),
        description="Probability of solarisation, for view 1 and for view 2. Any further view has that of view 2.",
    )
    flip_p: Probability = Field(0.5, description="Probability of a horizontal flip.")
    blur_p: tuple[Probability, Probability] = Field(
        (0.0, 0.0),
        description="Probability of Gaussian blur (sigma 0.1 to 2), for view 1 and for view 2. The CIFAR runs have 0.2 for"
        " view 2. Any further view has that of view 2.",
    )

    @field_validator("crop_scale", "local_scale", mode="before")
    @classmethod
    def _of_text(cls, scale: Any) -> Any:
        """Take ``0.05,0.4`` as users write it on the command line."""
        return scale.split(",") if isinstance(scale, str) else scale

    @field_validator("crop_scale", "local_scale")
    @classmethod
    def _in_order(cls, scale: tuple[float, float]) -> tuple[float, float]:
        if not 0 < scale[0] <= scale[1] <= 1:
            raise ValueError("must be two shares with 0 < smallest <= largest <= 1")
        return scale

    def crop(self, number: int, image_size: int) -> Crop:
        """How a view is cropped.

        Args:
            number: The number of the view, from 0.
            image_size: Side of a global view, in pixels.
        """
        if self.local_size is None or number < self.global_count:
            return Crop(image_size, self.crop_scale)
        return Crop(self.local_size, self.local_scale)

    def crops(self, image_size: int) -> list[Crop]:
        """Each way in which views are cropped: that of global views, and that of local ones if there are any."""
        return [self.crop(number, image_size) for number in ((0,) if self.local_size is None else (0, self.global_count))]


class BatchedStandardViewsOptions(StandardViewsOptions):
    """Options of the views ``batched``: those of ``standard``."""

    name: str = "batched"
