"""Options of the objective ``simclr``; imports no torch."""

from __future__ import annotations

from pydantic import Field

import ssl_dc


class SimCLROptions(ssl_dc.PartOptions):
    """Options of the objective ``simclr``."""

    name: str = "simclr"
    width: int = Field(128, ge=2, description="Width of the projection. The hidden layer is as wide as the features.")
    temperature: float = Field(
        0.5,
        gt=0,
        description="Temperature of the cosine similarities: 0.5 is the paper's for CIFAR-10, 0.1 for ImageNet.",
    )
