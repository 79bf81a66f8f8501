"""Lays out the weights of a plan in bf16 as kernel_bf16.c reads them."""

from __future__ import annotations

import torch
from torch import Tensor

from ssl_dc.compiled.kernel_interface import Kernel
from ssl_dc.compiled.layout import COLUMNS, PACKED, ROWS, Laid, Weights, is_layer, kind_of, pad, padded
from ssl_dc.compiled.plan import Plan
from ssl_dc.compiled.steps.layers import Conv, Linear

DEPTH = 2
"""Elements that a lane of a vector holds. The products of both are added at once."""
IMAGE_PIXEL = 3
"""Elements of a pixel of the images, where their readers allow it. So the elements of a row of taps lie side by side."""


class Bf16Weights(Weights):
    """The weights of a plan in bf16.

    Args:
        plan: A :class:`ssl_dc.compiled.bf16_plan.Bf16Plan`.
        kernel: Gives the widths of a pixel and of a block.
    """

    def __init__(self, plan: Plan, kernel: Kernel) -> None:
        self._images = plan.input if images_are_dense(plan) else None
        self._weights = {step.output: step.weight.to(torch.bfloat16) for step in plan.steps if isinstance(step, Conv)}
        super().__init__(plan, kernel)

    def kind(self, step: Conv | Linear) -> int:
        """The kind of operation that computes a layer."""
        return kind_of(step)

    def _laid(self, step: Conv) -> Laid:
        weight, bias = self._weights[step.output], pad(step.bias, 0, self._kernel.vector)
        if kind_of(step) != COLUMNS:
            return Laid(rows(weight, self._kernel), bias)
        if step.in_site is not None:
            return Laid(columns(weight, self._kernel, 1), bias)
        return Laid(columns(rows_of_taps(weight) if step.input == self._images else weight, self._kernel, DEPTH), bias)

    def _original(self, step: Conv) -> Tensor:
        return self._weights[step.output].float()


def images_are_dense(plan: Plan) -> bool:
    """Whether the pixels of the images lie without gaps: all who read them must be convolutions that pick nothing."""
    return all(is_layer(reader) and kind_of(reader) == COLUMNS for reader in plan.readers(plan.input))


def rows(weight: Tensor, kernel: Kernel) -> Tensor:
    """Weight (out, in, h, w) as (out, h, w, in padded to whole vectors): the weights of an output lie together."""
    return pad(weight.permute(0, 2, 3, 1), 3, kernel.vector).contiguous()


def rows_of_taps(weight: Tensor) -> Tensor:
    """Weight (out, in, h, w) as one of a kernel of a single column, (out, w * in, h, 1)."""
    return weight.permute(0, 3, 1, 2).flatten(1, 2)[..., None]


def columns(weight: Tensor, kernel: Kernel, together: int) -> Tensor:
    """Weight (out, in, h, w) as blocks of outputs, each (in / together, h, w, block, together).

    Args:
        weight: The weight.
        kernel: Gives the widths of a vector and of a block.
        together: So many inputs have their weights side by side; the last ones are made up to them with zeros.
    """
    whole = pad(pad(weight, 0, kernel.vector // DEPTH), 1, together)
    lanes = whole.unflatten(1, (-1, together)).permute(1, 3, 4, 0, 2)
    return torch.cat([block.flatten() for block in lanes.split(kernel.block, dim=3)])


def packed_floats(step: Conv, kind: int, kernel: Kernel) -> int:
    """Floats of memory that the packed weights of a convolution, and their biases, need while it runs."""
    outputs, inputs, height, width = step.weight.shape
    taps = height * width
    if kind == PACKED:
        return outputs * taps * padded(inputs, kernel.vector) // DEPTH
    if kind == ROWS:
        return padded(outputs, kernel.vector) * (-(-inputs // DEPTH) * taps + 1)
    return 0 if step.in_site is None else padded(outputs, kernel.block) * -(-inputs // DEPTH) * taps
