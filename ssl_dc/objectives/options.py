"""Options of the built-in objectives."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from ssl_dc.plugins.options import PartOptions


class ExpanderOptions(PartOptions):
    """Options of an objective whose head is the expander of method section 2."""

    compiles: ClassVar[bool] = True

    expander_width: int = Field(
        2048, ge=2, le=65536, description="Width of the expander's hidden layers and of its output."
    )


class MomentumOptions(PartOptions):
    """Options of an objective whose targets come from a momentum copy of the network."""

    momentum: float = Field(
        0.996,
        ge=0,
        le=1,
        description="Share of itself that the momentum copy keeps at the first step. It rises to 1 along a cosine. A"
        " shorter run needs a smaller share.",
    )
    target_route: Literal["dense", "same"] = Field(
        "dense",
        description="Route of the momentum copy: 'dense' for every view, or 'same' for the route of the view.",
    )


class VICRegOptions(ExpanderOptions):
    """Options of the objective ``vicreg``."""

    name: str = "vicreg"
    invariance: float = Field(25.0, ge=0, description="Weight of the invariance term.")
    variance: float = Field(25.0, ge=0, description="Weight of the variance term.")
    covariance: float = Field(1.0, ge=0, description="Weight of the covariance term.")
    variance_over_views: Literal["sum", "mean"] = Field(
        "sum",
        description="How the variance term joins the two views: 'sum' is the paper's equation, 'mean' the official "
        "VICReg code's (half of it).",
    )


class BarlowTwinsOptions(ExpanderOptions):
    """Options of the objective ``barlow_twins``."""

    name: str = "barlow_twins"
    off_diagonal: float = Field(0.0051, ge=0, description="Weight lambda of the off-diagonal entries.")
    scale: float = Field(
        0.024,
        gt=0,
        description="Factor of the whole loss: 0.024 is the published default, 0.1 solo-learn's CIFAR recipe. Under LARS it"
        " matters only for 1-D parameters.",
    )
