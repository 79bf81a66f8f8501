"""Options of the objective ``byol``; imports no torch."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

import ssl_dc


class BYOLOptions(ssl_dc.PartOptions):
    """Options of the objective ``byol``; the widths and the momentum are the paper's for ImageNet."""

    name: str = "byol"
    width: int = Field(256, ge=2, description="Width of the projection and of its prediction.")
    hidden_width: int = Field(4096, ge=2, description="Width of the hidden layers of projector and predictor.")
    momentum: float = Field(
        0.996,
        ge=0,
        le=1,
        description="Share of itself that the target keeps at the first step. It rises to 1 along a cosine. A shorter run"
        " needs a smaller share: the paper has 0.99 for 300 epochs and 0.996 for 1000.",
    )
    target_route: Literal["dense", "same"] = Field(
        "dense",
        description="Route of the target: 'dense' for every view, or 'same' for the route of the view.",
    )
