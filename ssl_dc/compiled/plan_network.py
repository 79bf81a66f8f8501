"""A plan without gates as an ordinary torch module."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

from ssl_dc.compiled.eager import compute
from ssl_dc.compiled.plan import Plan
from ssl_dc.compiled.steps.gates import Decide
from ssl_dc.compiled.steps.layers import Conv, Linear


class PlanNetwork(nn.Module):
    """An ordinary network, images in and features out, for compilers and export.

    Args:
        plan: A plan without decisions: of the dense route, or made static.

    Raises:
        ValueError: If the plan has decisions.
    """

    def __init__(self, plan: Plan) -> None:
        super().__init__()
        if any(isinstance(step, Decide) for step in plan.steps):
            raise ValueError("a plan with decisions of gates cannot be an ordinary network")
        self.plan = plan
        self.layers = nn.ModuleDict()
        for step in plan.steps:
            if isinstance(step, (Conv, Linear)):
                self.layers[_key(step)] = _layer(step)

    def forward(self, images: Tensor) -> Tensor:
        """Features (N, feature_dim) of images (N, 3, H, W)."""
        values: dict[str, Any] = {self.plan.input: images}
        for step in self.plan.steps:
            if not isinstance(step, (Conv, Linear)):
                values[step.output] = compute(step, values, {})
                continue
            y = self.layers[_key(step)](values[step.input])
            if isinstance(step, Conv) and step.residual is not None:
                y = y + values[step.residual]
            values[step.output] = y if step.activation is None else step.activation(y)
        return cast(Tensor, values[self.plan.output])


def _layer(step: Conv | Linear) -> nn.Conv2d | nn.Linear:
    """A convolution or a linear layer as a module."""
    outputs, inputs = step.weight.shape[:2]
    layer: nn.Conv2d | nn.Linear
    with torch.device("meta"):  # its random initial weights would be thrown away
        if isinstance(step, Linear):
            layer = nn.Linear(inputs, outputs)
        else:
            kernel = (step.weight.shape[2], step.weight.shape[3])
            layer = nn.Conv2d(inputs * step.groups, outputs, kernel, step.stride, step.padding, groups=step.groups)
    layer.weight = nn.Parameter(step.weight.clone(), requires_grad=False)
    layer.bias = nn.Parameter(step.bias.clone(), requires_grad=False)
    return layer


def _key(step: Conv | Linear) -> str:
    """The name of a layer as a valid name of a submodule."""
    return step.layer.replace(".", "_")
