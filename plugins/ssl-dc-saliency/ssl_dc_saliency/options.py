"""Options of the gating scheme ``saliency``; imports no torch."""

from __future__ import annotations

from pydantic import Field

import ssl_dc


class SaliencyOptions(ssl_dc.GatingOptions):
    """Options of the gating scheme ``saliency``."""

    name: str = "saliency"
    share: float = Field(
        0.5,
        gt=0,
        lt=1,
        description="Share of a site's channels that is open to begin with (d of FBS). With the budget control 'penalty',"
        " which moves it slowly, set it to about the budget.",
    )
    temperature: float = Field(
        1.0, gt=0, description="How far from the last open channel a channel's saliency still learns, in the gradient."
    )
    penalty: float = Field(5.0, ge=0, description="Weight of the squared distance to the budget.")
