"""The weights of a plan, laid out as the kernel reads them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from ssl_dc.compiled.kernel import Kernel
from ssl_dc.compiled.plan import Conv, Decide, Plan, Step
from ssl_dc.gating.base import PooledRule

ROWS, COLUMNS, PACKED, MAXPOOL, MEAN, GATE, RELU_OF, HOST = range(8)
"""The kinds of operation; see kernel.c."""


def kind_of(step: Conv) -> int:
    """Which of the kernel's convolutions a step is."""
    if step.out_site is None:
        return COLUMNS
    return ROWS if step.in_site is None else PACKED


@dataclass(frozen=True)
class LaidRule:
    """A gate's rule as the kernel reads it.

    Attributes:
        hidden: Hidden units.
        tensors: Weight (hidden, in), bias, weight (channels, hidden), bias; rows padded to whole vectors.
    """

    hidden: int
    tensors: tuple[Tensor, Tensor, Tensor, Tensor]


class Weights:
    """The weights of a plan, laid out as the kernel reads them.

    Args:
        plan: Laid out are its convolutions and its gates' rules.
        kernel: Says how wide a vector and a block are.
    """

    def __init__(self, plan: Plan, kernel: Kernel) -> None:
        self._laid: dict[str, tuple[Tensor, Tensor]] = {}
        self._rules: dict[str, LaidRule | None] = {}
        for step in plan.steps:
            if isinstance(step, Conv):
                lay = columns if kind_of(step) == COLUMNS else rows
                bias = _pad(step.bias, 0, kernel.vector)
                self._laid[step.output] = (lay(step.weight, kernel), bias)
            elif isinstance(step, Decide):
                rule = step.gate.pooled_rule(step.threshold)
                self._rules[step.site.name] = None if rule is None else _laid_rule(rule, kernel)

    def convolution(self, step: Conv) -> tuple[Tensor, Tensor]:
        """Weight and bias of a convolution."""
        return self._laid[step.output]

    def rule(self, step: Decide) -> LaidRule | None:
        """The rule of a gate, if it is one."""
        return self._rules[step.site.name]


def without_weights(plan: Plan) -> Plan:
    """The plan with convolutions whose weights have shapes only, once they are laid out elsewhere."""
    convolutions: dict[Step, tuple[Step]] = {
        step: (replace(step, weight=step.weight.to("meta")),) for step in plan.steps if isinstance(step, Conv)
    }
    return plan.exchanged(convolutions)


def rows(weight: Tensor, kernel: Kernel) -> Tensor:
    """Weight (out, in, h, w) as (out, h, w, in padded to whole vectors): an output's weights lie together."""
    return _pad(weight.permute(0, 2, 3, 1), 3, kernel.vector).contiguous()


def columns(weight: Tensor, kernel: Kernel) -> Tensor:
    """Weight (out, in, h, w) as blocks of outputs, each (in, h, w, block): an input's weights lie together in each."""
    turned = _pad(weight.permute(1, 2, 3, 0), 3, kernel.vector)
    return torch.cat([block.flatten() for block in turned.split(kernel.block, dim=3)])


def _laid_rule(rule: PooledRule, kernel: Kernel) -> LaidRule:
    tensors = (
        _pad(rule.hidden_weight, 1, kernel.vector).contiguous(),
        rule.hidden_bias.contiguous(),
        _pad(rule.weight, 1, kernel.vector).contiguous(),
        rule.bias.contiguous(),
    )
    first, second, third, fourth = (tensor.detach().float() for tensor in tensors)
    return LaidRule(len(rule.hidden_bias), (first, second, third, fourth))


def _pad(tensor: Tensor, dim: int, multiple: int) -> Tensor:
    """The tensor with zeros at the end of a dimension, to a multiple."""
    after = [0, padded(tensor.shape[dim], multiple) - tensor.shape[dim]]
    return nn.functional.pad(tensor, [0, 0] * (tensor.ndim - 1 - dim) + after)


def padded(size: int, multiple: int) -> int:
    """The least multiple that is not smaller."""
    return -(-size // multiple) * multiple
