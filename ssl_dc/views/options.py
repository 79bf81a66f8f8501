"""Options of the built-in augmentation recipes."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, field_validator

from ssl_dc.plugins.options import PartOptions

Probability = Annotated[float, Field(ge=0, le=1)]
Strength = Annotated[float, Field(ge=0)]


class StandardViewsOptions(PartOptions):
    """Options of the views ``standard``; the defaults are the paper's (method section 1)."""

    name: str = "standard"
    crop_scale: tuple[float, float] = Field(
        (0.2, 1.0), description="Smallest and largest share of the image's area in a crop."
    )
    brightness: Strength = Field(0.4, description="Strength of the colour jitter's brightness.")
    contrast: Strength = Field(0.4, description="Strength of its contrast.")
    saturation: Strength = Field(0.2, description="Strength of its saturation.")
    hue: float = Field(0.1, ge=0, le=0.5, description="Strength of its hue.")
    jitter_p: Probability = Field(0.8, description="Probability of colour jitter.")
    grayscale_p: Probability = Field(0.2, description="Probability of a grey image.")
    solarize_p: tuple[Probability, Probability] = Field(
        (0.1, 0.1),
        description="Probability of solarisation, for view 1 and for view 2. Any further view is drawn as view 2.",
    )
    flip_p: Probability = Field(0.5, description="Probability of a horizontal flip.")
    blur_p: tuple[Probability, Probability] = Field(
        (0.0, 0.0),
        description="Probability of Gaussian blur (sigma 0.1 to 2), for view 1 and for view 2. The CIFAR runs have 0.2 for"
        " view 2. Any further view is drawn as view 2.",
    )

    @field_validator("crop_scale")
    @classmethod
    def _in_order(cls, scale: tuple[float, float]) -> tuple[float, float]:
        if not 0 < scale[0] <= scale[1] <= 1:
            raise ValueError("must be two shares with 0 < smallest <= largest <= 1")
        return scale


class BatchedStandardViewsOptions(StandardViewsOptions):
    """Options of the views ``batched``: those of ``standard``."""

    name: str = "batched"
