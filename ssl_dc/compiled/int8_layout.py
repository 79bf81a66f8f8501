"""Lays out the weights of a plan in int8 as kernel_int8.c reads them."""

from __future__ import annotations

import torch
from torch import Tensor

from ssl_dc.compiled.int8_plan import Int8Conv
from ssl_dc.compiled.kernel_interface import Kernel
from ssl_dc.compiled.layout import COLUMNS, ROWS, Laid, Weights, kind_of, pad, padded
from ssl_dc.compiled.plan import Plan
from ssl_dc.compiled.steps.layers import Conv, Linear

GROUP = 16
"""The outputs whose weights for four inputs make 64 bytes."""
ROW = 64
"""Bytes of which the weights of an output for a row of taps are a multiple."""
IMAGE_PIXEL = 3
"""Bytes of a pixel of the images. So the codes of a row of taps lie side by side, and are multiplied four at a time."""


class Int8Weights(Weights):
    """The weights of a plan in int8.

    Args:
        plan: An :class:`Int8Plan`. Its convolutions and the pooled rules of its gates are laid out.
        kernel: Gives the widths of a pixel and of a block.
    """

    def __init__(self, plan: Plan, kernel: Kernel) -> None:
        self._images = plan.input
        self._block = kernel.block
        self._weights = {step.output: step.weight for step in plan.steps if isinstance(step, Conv)}
        super().__init__(plan, kernel)

    def kind(self, step: Conv | Linear) -> int:
        """The kind of operation that computes a layer."""
        return kind_of(step)

    def _laid(self, step: Conv) -> Laid:
        if not isinstance(step, Int8Conv):
            raise TypeError(f"{step.layer} is not in int8")
        bias, scale = pad(step.bias, 0, GROUP), pad(step.scale, 0, GROUP)
        pixel = IMAGE_PIXEL if step.input == self._images else padded(step.weight.shape[1], self._kernel.vector)
        if kind_of(step) == ROWS:
            return Laid(rows(step.weight, pixel), bias, scale)
        if kind_of(step) != COLUMNS:
            return Laid(step.weight.permute(0, 2, 3, 1).contiguous(), bias, scale)
        weight = rows_of_taps(step.weight) if step.input == self._images else step.weight
        lay = columns if step.in_site is None else columns_to_pack
        return Laid(lay(weight, self._block), bias, scale)

    def _original(self, step: Conv) -> Tensor:
        return self._weights[step.output]


def rows(weight: Tensor, pixel: int) -> Tensor:
    """Weight (out, in, h, w) as (out, h, w * pixel padded to a multiple of 64 bytes): as the codes of a row of taps lie."""
    return pad(pad(weight.permute(0, 2, 3, 1), 3, pixel).flatten(2), 2, ROW).contiguous()


def rows_of_taps(weight: Tensor) -> Tensor:
    """Weight (out, in, h, w) as one of a kernel of a single column, (out, w * in, h, 1)."""
    return weight.permute(0, 3, 1, 2).flatten(1, 2)[..., None]


def columns(weight: Tensor, block: int) -> Tensor:
    """Weight (out, in, h, w) as blocks of outputs, each (h, w, fours of inputs, outputs, 4)."""
    whole = pad(pad(weight, 0, GROUP), 1, 4)
    fours = whole.unflatten(1, (-1, 4)).permute(3, 4, 1, 0, 2)  # (h, w, fours, out, 4)
    return torch.cat([part.flatten() for part in fours.split(block, dim=3)])


def columns_to_pack(weight: Tensor, block: int) -> Tensor:
    """Weight (out, in, h, w) as blocks of outputs, each (in, h, w, block): output 16k + 4l + j of it is byte 16l + 4k + j.

    The kernel puts the weights of four inputs side by side with instructions that exchange k and l.
    """
    turned: Tensor = pad(weight.permute(1, 2, 3, 0), 3, block).unflatten(3, (-1, 4, 4, 4))
    return turned.transpose(4, 5).movedim(3, 0).contiguous()


def packed_floats(step: Conv, kind: int) -> int:
    """Floats of memory that the packed weights and scales of a convolution need while it runs."""
    outputs, inputs, height, width = step.weight.shape
    if kind == COLUMNS and step.in_site is None:
        return 0
    bytes_ = padded(outputs, GROUP) * padded(inputs, GROUP if kind == ROWS else 4) * height * width
    return bytes_ // 4 + 2 * padded(outputs, GROUP)
