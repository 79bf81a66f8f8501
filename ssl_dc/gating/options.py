"""Options of the built-in gating schemes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field

from ssl_dc.plugins.options import GatingOptions


class NoGatingOptions(GatingOptions):
    """Options of the gating scheme ``none``, which has none."""

    gates: ClassVar[bool] = False
    recipe: ClassVar[Mapping[str, Any]] = {"routes": ["dense", "dense"], "budget.target": None}

    name: str = "none"


class DGNetLossOptions(GatingOptions):
    """What DGNet's channel and spatial gates have in common; the defaults are the published ones (method section 4)."""

    compiles: ClassVar[bool] = True

    temperature: float = Field(2 / 3, gt=0, description="Temperature tau of the relaxed gates in training.")
    noise: float = Field(
        1.0,
        ge=0,
        description="Scale of the logistic noise in training; 0 trains the gates as they are evaluated, for short runs.",
    )
    penalty: float = Field(5.0, ge=0, description="Weight lambda of the squared distance to the budget.")
    bound: float = Field(1.0, ge=0, description="Weight gamma of the bound ('balance') term.")
    bound_decay: float = Field(
        10.0,
        ge=0,
        description="How fast the bound is relaxed: p = exp(-bound_decay * progress); 0.02 an epoch at 500.",
    )


class DGNetOptions(DGNetLossOptions):
    """Options of the gating scheme ``dgnet``."""

    name: str = "dgnet"
    reduction: int = Field(4, ge=1, description="Hidden width of a gate: the block's input channels divided by this.")
    start: Literal["even", "ordered"] = Field(
        "even",
        description="'even', as published: all channels of a site begin alike. 'ordered': a learned bias opens the first"
        " channels most and the last ones least, so that gates begin as a fixed prefix does.",
    )
    diversity: float = Field(
        0.0,
        ge=0,
        description="Weight of how differently often the channels of a site are open; above 0 their use becomes more even.",
    )


class DGNetSpatialOptions(DGNetLossOptions):
    """Options of the gating scheme ``dgnet_spatial``."""

    name: str = "dgnet_spatial"
    grid: int = Field(
        4,
        ge=1,
        le=256,
        description="Cells of a mask along each side. DGNet has 7 at 224 px, and 8, 8 and 4 in its stages at 32 px. With"
        " more cells than a layer has positions along a side, some of them decide nothing.",
    )


class DGNetDualOptions(DGNetSpatialOptions, DGNetOptions):
    """Options of the gating scheme ``dgnet_dual``: those of the channel gates and of the spatial gates."""

    name: str = "dgnet_dual"


class ConvNetAIGOptions(GatingOptions):
    """Options of the gating scheme ``convnet_aig``; the defaults are the published ones (method section 5)."""

    compiles: ClassVar[bool] = True

    name: str = "convnet_aig"
    hidden: int = Field(16, ge=1, le=65536, description="Hidden width of a gate.")
    noise: float = Field(
        1.0,
        ge=0,
        description="Scale of the Gumbel noise in training; 0 trains the gates as they are evaluated, for short runs.",
    )
    loss: Literal["target_rate", "budget"] = Field(
        "target_rate",
        description="'target_rate' draws the rate of each block to the budget, as published; 'budget' is dgnet's global"
        " penalty, so that both schemes can be compared at the same cost.",
    )
    penalty: float = Field(
        2.0, ge=0, description="Weight of that loss: published are 2 (CIFAR) and 1 (ImageNet) for target_rate; dgnet has 5."
    )


class PrefixGatingOptions(GatingOptions):
    """Options of the gating scheme ``prefix``, which has none."""

    compiles: ClassVar[bool] = True

    name: str = "prefix"


class RandomGatingOptions(GatingOptions):
    """Options of the gating scheme ``random``, which has none."""

    name: str = "random"
