"""A plan whose values and weights are rounded to bf16."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ssl_dc.compiled.activations import RELU
from ssl_dc.compiled.known_steps import refuse_unknown_steps
from ssl_dc.compiled.plan import Plan
from ssl_dc.compiled.precisions import BF16
from ssl_dc.compiled.steps.base import Step
from ssl_dc.compiled.steps.layers import Conv


@dataclass(frozen=True, eq=False)
class Bf16Plan(Plan):
    """A plan in bf16: its weights are rounded, and so is every value that is computed. Its features are float32.

    Products are exact in float32, and are added in float32. Biases and residuals are added before the sum is rounded.
    """

    @property
    def precision(self) -> str:
        """Bf16."""
        return BF16


def in_bf16(plan: Plan) -> Bf16Plan:
    """The plan in bf16.

    Args:
        plan: A fused plan in float32.

    Raises:
        RunError: If a step cannot be computed in bf16, or a weight is not finite.
    """
    refuse_unknown_steps(plan, BF16, _multiplies, "a weight that is not finite, groups, or another activation than ReLU")
    rounded: dict[Step, tuple[Step]] = {
        step: (replace(step, weight=rounded_to_bf16(step.weight)),) for step in plan.steps if isinstance(step, Conv)
    }
    return Bf16Plan(plan.exchanged(rounded).steps, plan.output, plan.input)


def rounded_to_bf16(numbers: Tensor) -> Tensor:
    """The nearest numbers that bf16 has, ties to even, as float32."""
    return numbers.detach().to(torch.bfloat16).float()


def _multiplies(step: Conv) -> bool:
    """Whether the kernel can compute a convolution."""
    plain = step.groups == step.in_span == step.out_span == 1 and step.activation in (None, RELU)
    return plain and bool(rounded_to_bf16(step.weight).isfinite().all() and step.bias.isfinite().all())
