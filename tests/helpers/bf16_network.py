"""States what a plan in bf16 computes: step by step with torch, in float64, each value rounded to bf16."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor

from ssl_dc.compiled.bf16_plan import Bf16Plan, in_bf16, rounded_to_bf16
from ssl_dc.compiled.capture import capture
from ssl_dc.compiled.eager import EagerRun, compute
from ssl_dc.compiled.fuse import fuse
from ssl_dc.compiled.steps.base import Step
from ssl_dc.compiled.steps.gates import Decide
from ssl_dc.compiled.steps.layers import Conv
from ssl_dc.compiled.steps.pooling import Mean
from tests.helpers.random_networks import DrawnNetwork


class Bf16Run(EagerRun):
    """Runs a batch of images (N, 3, H, W) through a plan in bf16.

    Attributes:
        exact: Whether every sum of the latest call is exact in float32, in whatever order it is added.
    """

    def __init__(self, plan: Bf16Plan) -> None:
        self.exact = True
        super().__init__(plan.exchanged({step: (_in_float64(step),) for step in plan.steps}))

    def __call__(self, images: Tensor) -> Tensor:
        """Features (N, feature_dim), float64."""
        self.exact = True
        return super().__call__(rounded_to_bf16(images).double())

    def value(self, step: Step, values: Mapping[str, Any], kept: Mapping[str, Tensor]) -> Any:
        """The value of a step for one image. The mean, which gives the features, is not rounded."""
        value = super().value(step, values, kept)
        if isinstance(step, Conv):
            self.exact &= _is_exact(step, values, kept)
        return value if isinstance(step, Mean) else rounded_to_bf16(value.float()).double()


def _is_exact(step: Conv, values: Mapping[str, Any], kept: Mapping[str, Tensor]) -> bool:
    """Whether all sums of a convolution of one image fit in the 24 bits of a float32.

    All terms are multiples of the product of the smallest units of inputs and weights, or of those of biases and residuals.
    """
    residual = None if step.residual is None else values[step.residual]
    terms = [step.bias, *(() if residual is None else (residual,))]
    unit = min(_unit(values[step.input]) * _unit(step.weight), *map(_unit, terms))
    magnitudes = {name: value.abs() for name, value in values.items() if name in step.inputs}
    of_magnitudes = replace(step, weight=step.weight.abs(), bias=step.bias.abs(), activation=None)
    largest = compute(of_magnitudes, magnitudes, kept)
    return not largest.numel() or float(largest.max()) < 2**24 * unit


def _unit(numbers: Tensor) -> float:
    """The largest power of two of which all numbers are multiples; infinity if all are 0."""
    fractions, exponents = torch.frexp(numbers[numbers != 0].double())
    if not len(fractions):
        return math.inf
    whole = (fractions * 2**53).long()
    return float(torch.ldexp((whole & -whole).double(), exponents - 53).min())


def _in_float64(step: Step) -> Step:
    if isinstance(step, Decide):
        return replace(step, gate=copy.deepcopy(step.gate).double())
    return replace(step, weight=step.weight.double(), bias=step.bias.double()) if isinstance(step, Conv) else step


def with_exact_sums(plan: Bf16Plan, generator: torch.Generator) -> Bf16Plan:
    """The plan with other weights: -1, 0 and 1, times a power of two that keeps values near 1.

    On images of small whole numbers nearly all sums are exact in float32, in whatever order they are added. Where all are,
    a kernel must give the features of :class:`Bf16Run` within the rounding of the last mean.
    """
    return cast("Bf16Plan", plan.exchanged({step: (_with_simple_weights(step, generator),) for step in plan.steps}))


def whole_numbers(shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """Images of numbers from -3 to 3."""
    return torch.randint(-3, 4, tuple(shape), generator=generator).float()


def _with_simple_weights(step: Step, generator: torch.Generator) -> Step:
    if not isinstance(step, Conv):
        return step
    unit = 2.0 ** -round(math.log2(step.weight[0].numel()) / 2)
    weight = torch.randint(-1, 2, step.weight.shape, generator=generator) * unit
    return replace(step, weight=weight, bias=torch.randint(-1, 2, step.bias.shape, generator=generator) / 4)


def exact_in_bf16(case: DrawnNetwork) -> tuple[Bf16Plan, Tensor]:
    """The plan of a network drawn at random, with exact sums, and images for it."""
    generator = torch.Generator().manual_seed(case.seed)
    plan = in_bf16(fuse(capture(case.encoder().backbone(case.route), case.route)))
    return with_exact_sums(plan, generator), whole_numbers(case.shape, generator)
