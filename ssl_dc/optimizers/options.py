"""Options of the built-in optimisers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field

from ssl_dc.plugins.options import OptimizerOptions


class LARSOptions(OptimizerOptions):
    """Options of the optimiser ``lars``. The defaults are the paper's (method section 1)."""

    recipe: ClassVar[Mapping[str, Any]] = {"training.least_warmup": 200}

    name: str = "lars"
    lr: float = Field(0.3, gt=0, description="Peak learning rate.")
    lr_scaling: Literal["linear", "none"] = Field(
        "linear", description="'linear' multiplies lr by training.batch_size / 256. 'none' uses lr as it is."
    )
    momentum: float = Field(0.9, ge=0, lt=1, description="Momentum.")
    weight_decay: float = Field(
        1e-4, ge=0, description="Weight decay inside LARS. It does not apply to gates and 1-D parameters."
    )
    trust: float = Field(0.02, gt=0, description="Trust coefficient eta.")


class AdamWOptions(OptimizerOptions):
    """Options of the optimiser ``adamw``."""

    name: str = "adamw"
    lr: float = Field(2e-3, gt=0, description="Peak learning rate.")
    beta1: float = Field(0.9, ge=0, lt=1, description="Decay rate of the mean of the gradients.")
    beta2: float = Field(0.999, ge=0, lt=1, description="Decay rate of the mean of their squares.")
    weight_decay: float = Field(1e-4, ge=0, description="Weight decay. It does not apply to gates and 1-D parameters.")
