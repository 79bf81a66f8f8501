"""A plan run by torch, step by step: what compiled code is measured against, and what runs where there is no compiler."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_dc.compiled.plan import Add, Call, Conv, Decide, Mask, MaxPool, Mean, Norm, Plan, Relu, Step

Values = dict[str, Any]
"""Values by name; for a channel-gated one only the kept channels, in their order."""


class EagerRun:
    """One image's way through a plan.

    Args:
        plan: The plan.

    Attributes:
        values: What was computed.
        masks: For each site the mask (1, channels) that its gate gave.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.values: Values = {}
        self.masks: dict[str, Tensor] = {}
        self._kept: dict[str, Tensor] = {}

    def __call__(self, image: Tensor) -> Tensor:
        """Features (1, feature_dim) of an image (1, 3, H, W)."""
        self.values = {self.plan.input: image}
        for step in self.plan.steps:
            if self._runs(step):
                self._do(step)
        return cast(Tensor, self.values[self.plan.output])

    def _runs(self, step: Step) -> bool:
        if step.when is not None:
            return len(self._kept[step.when]) > 0
        return step.unless is None or len(self._kept[step.unless]) == 0

    def _do(self, step: Step) -> None:
        if isinstance(step, Decide):
            mask = step.gate(self.values[step.input], step.threshold)
            self.masks[step.site.name] = mask
            self._kept[step.site.name] = mask[0].nonzero().flatten()
        else:
            self.values[step.output] = compute(step, self.values, self._kept)


def compute(step: Step, values: Mapping[str, Any], kept: Mapping[str, Tensor]) -> Any:
    """What a step makes of the values of one image.

    Args:
        step: Any but a decision.
        values: What it reads, by name.
        kept: For each site that it heeds the indices of the open entries.
    """
    if isinstance(step, Conv):
        return _convolve(step, values, kept)
    if isinstance(step, Norm):
        return step.norm(values[step.input])
    if isinstance(step, Relu):
        return torch.relu(values[step.input]) if step.relu else values[step.input]
    if isinstance(step, Add):
        return values[step.left] + values[step.right]
    if isinstance(step, MaxPool):
        return F.max_pool2d(values[step.input], step.kernel, step.stride, step.padding)
    if isinstance(step, Mean):
        return values[step.input].mean(dim=(2, 3))
    if isinstance(step, Mask):
        mask = torch.zeros(step.site.channels)
        mask[kept[step.site.name]] = 1
        return values[step.input] * mask[:, None, None]
    if isinstance(step, Call):
        return step.function(*(values[argument] for argument in step.arguments))
    raise TypeError(f"a {type(step).__name__} cannot be computed")


def _convolve(step: Conv, values: Mapping[str, Any], kept: Mapping[str, Tensor]) -> Tensor:
    x, weight, bias = values[step.input], step.weight, step.bias
    if step.out_site is not None:
        weight, bias = weight[kept[step.out_site]], bias[kept[step.out_site]]
    if step.in_site is not None:
        weight = weight[:, kept[step.in_site]]
    if 0 in weight.shape:  # nothing is convolved, and the bias is all there is
        _, _, height, width = step.shape(x.shape)
        y = bias[None, :, None, None].expand(1, len(bias), height, width)
    else:
        y = F.conv2d(x, weight, bias, stride=step.stride, padding=step.padding)
    if step.residual is not None:
        y = y + values[step.residual]
    return torch.relu(y) if step.relu else y
