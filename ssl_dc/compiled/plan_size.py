"""Counts the MACs and the parameters of a plan."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ssl_dc.compiled.eager import EagerRun, attended, weight_and_bias
from ssl_dc.compiled.plan import Plan
from ssl_dc.compiled.steps.attention import Attention, Products
from ssl_dc.compiled.steps.base import Step
from ssl_dc.compiled.steps.gates import Decide
from ssl_dc.compiled.steps.layers import Conv, Linear


def macs_of(plan: Plan, image_size: int) -> int:
    """MACs of the layers and attention products of a plan for one image (3, image_size, image_size), all of it computed."""
    run = _AllOpen(plan)
    run(torch.zeros(1, 3, image_size, image_size))
    return run.macs


def parameters_of(plan: Plan) -> int:
    """Number of weights and biases of the layers of a plan."""
    return sum(step.weight.numel() + step.bias.numel() for step in plan.steps if isinstance(step, (Conv, Linear)))


class CountedRun(EagerRun):
    """A run that counts what its layers and attention products multiply. Gates are not counted.

    Attributes:
        macs: MACs so far, of all images.
    """

    def __init__(self, plan: Plan) -> None:
        super().__init__(plan)
        self.macs = 0

    def value(self, step: Step, values: Mapping[str, Any], kept: Mapping[str, Tensor]) -> Any:
        """The value of a step for one image, which is counted."""
        value = super().value(step, values, kept)
        if isinstance(step, (Conv, Linear)):
            positions = value.shape[2:] if isinstance(step, Conv) else value.shape[:-1]
            self.macs += weight_and_bias(step, kept)[0].numel() * positions.numel()
        elif isinstance(step, Products):
            self.macs += step.products.macs(*(values[name] for name in step.inputs[:3]))
        elif isinstance(step, Attention):
            self.macs += step.products.macs(*attended(step, values))
        return value


class _AllOpen(CountedRun):
    """A run in which every gate is open."""

    def _decide(self, step: Decide) -> None:
        for kept in self._kept:
            kept[step.site.name] = torch.arange(step.site.channels)
