"""AdamW (Loshchilov and Hutter 2019), for short runs, in which LARS hardly moves the weights."""

from __future__ import annotations

from collections.abc import Sequence

from torch.optim import AdamW, Optimizer

from ssl_dc.optimizers.base import ParameterGroup
from ssl_dc.optimizers.options import AdamWOptions


def build(options: AdamWOptions, groups: Sequence[ParameterGroup], lr: float) -> Optimizer:
    """The optimiser ``adamw``. 1-D parameters and gates are not decayed."""
    split = []
    for group in groups:
        for decay in (True, False):
            parameters = [p for p in group.parameters if (group.decay and p.ndim > 1) is decay]
            if parameters:
                split.append({"params": parameters, "weight_decay": options.weight_decay if decay else 0.0})
    return AdamW(split, lr=lr, betas=(options.beta1, options.beta2))
