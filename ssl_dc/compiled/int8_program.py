"""Turns a plan in int8 at one image size into a program of kernel_int8.c."""

from __future__ import annotations

import torch
from torch import Tensor

from ssl_dc.compiled.arena import Cells
from ssl_dc.compiled.int8_layout import GROUP, IMAGE_PIXEL, packed_floats
from ssl_dc.compiled.int8_plan import Code, Int8Conv, Int8Plan
from ssl_dc.compiled.kernel_interface import Kernel, Op
from ssl_dc.compiled.layout import COLUMNS, HOST, Weights, pad
from ssl_dc.compiled.native import NativeProgram
from ssl_dc.compiled.plan import Plan
from ssl_dc.compiled.steps.base import Step
from ssl_dc.compiled.steps.elementwise import Relu
from ssl_dc.compiled.steps.gates import Decide
from ssl_dc.compiled.steps.layers import Conv
from ssl_dc.compiled.steps.pooling import Mean
from ssl_dc.errors import RunError


class Int8Program(NativeProgram):
    """A plan in int8, ready to run on images of one size. It has no host steps.

    Args:
        plan: The plan.
        image_size: (height, width) of the images.
        kernel: The compiled int8 kernel.
        weights: The weights of the plan; the programs of a plan share them.
        threads: How many threads work at once.

    Raises:
        RunError: If the kernel cannot compute a step at this image size.
    """

    def __init__(self, plan: Plan, image_size: tuple[int, int], kernel: Kernel, weights: Weights, threads: int) -> None:
        if not isinstance(plan, Int8Plan):
            raise TypeError("this plan is not in int8")
        self._int8 = plan
        self._vectors: list[Tensor] = []
        super().__init__(plan, image_size, kernel, weights, threads)
        code = self._int8.codes[plan.input]
        self._program.input_scale, self._program.input_zero = float(1 / code.step[0]), code.zero

    def _cells(self) -> Cells:
        zeros = {value: code.zero for value, code in self._int8.codes.items()}
        fine = frozenset(value for value, code in self._int8.codes.items() if code.fine)
        return Cells(size=1, pixel=self.kernel.vector, image_pixel=IMAGE_PIXEL, zeros=zeros, fine=fine)

    def _op(self, step: Step, weights: Weights) -> Op:
        op = super()._op(step, weights)
        if op.kind == HOST:
            raise RunError(f"int8 cannot compute the step {step.output!r} at this image size; use precision='float32'")
        codes = self._int8.codes
        if isinstance(step, Int8Conv):
            op.low = step.low
            if step.input == self._int8.input and op.kind == COLUMNS:  # its weights are laid out as rows of taps
                op.x.channels, op.kernel_w = op.x.channels * op.kernel_w, 1
            if step.residual_scale is not None:
                op.residual_scale = self._vector(step.residual_scale)
        elif isinstance(step, (Mean, Decide)):
            code = codes[step.input]
            op.scale, op.x_zero = self._vector(code.step / (op.x.height * op.x.width)), code.zero
        elif isinstance(step, Relu):
            scale, bias = copying(codes[step.input], codes[step.output])
            op.scale, op.bias = self._vector(scale), self._vector(bias)
            op.low = codes[step.output].zero if step.relu else 0
        return op

    def _vector(self, numbers: Tensor) -> int:
        """The address of a number for each channel, in float32. They are padded as the channels of a pixel are."""
        self._vectors.append(pad(numbers.float(), 0, GROUP))
        return self._vectors[-1].data_ptr()

    def _scratch_of(self, step: Step, op: Op) -> int:
        if isinstance(step, Conv):
            return packed_floats(step, op.kind)
        fine = self.kernel.parts * op.x.stride if isinstance(step, (Mean, Decide)) and op.x.fine else 0
        logits = step.site.channels if isinstance(step, Decide) else 0
        return super()._scratch_of(step, op) + fine + logits

    def _new_arena(self) -> Tensor:
        arena = torch.zeros(self._arena.cells_of_all, dtype=torch.uint8)
        for start, end, zero in self._arena.borders():
            arena[start:end] = zero
        return arena


def copying(given: Code, made: Code) -> tuple[Tensor, Tensor]:
    """Scale and bias, (channels,) float32 each, that turn the numbers of one code into bytes of another."""
    scale = (given.unit / made.step).float()
    return scale, (made.zero - given.origin * scale.double()).float()
