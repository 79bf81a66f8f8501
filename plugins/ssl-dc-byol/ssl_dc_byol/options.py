"""Options of the objective ``byol``; imports no torch."""

from __future__ import annotations

from pydantic import Field

import ssl_dc


class BYOLOptions(ssl_dc.MomentumOptions):
    """Options of the objective ``byol``; the widths and the momentum are the paper's for ImageNet."""

    name: str = "byol"
    width: int = Field(256, ge=2, description="Width of the projection and of its prediction.")
    hidden_width: int = Field(4096, ge=2, description="Width of the hidden layers of projector and predictor.")
