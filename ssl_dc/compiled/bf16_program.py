"""Turns a plan in bf16 at one image size into a program of kernel_bf16.c."""

from __future__ import annotations

import torch
from torch import Tensor

from ssl_dc.compiled.arena import Cells
from ssl_dc.compiled.bf16_layout import IMAGE_PIXEL, images_are_dense, packed_floats
from ssl_dc.compiled.kernel_interface import Op
from ssl_dc.compiled.layout import COLUMNS, HOST, Weights
from ssl_dc.compiled.native import NativeProgram
from ssl_dc.compiled.steps.base import Step
from ssl_dc.compiled.steps.layers import Conv
from ssl_dc.errors import RunError


class Bf16Program(NativeProgram):
    """A plan in bf16, ready to run on images of one size. It has no host steps.

    Raises:
        RunError: If the kernel cannot compute a step at this image size.
    """

    def _cells(self) -> Cells:
        image_pixel = IMAGE_PIXEL if images_are_dense(self.plan) else self.kernel.vector
        return Cells(size=2, pixel=self.kernel.vector, image_pixel=image_pixel)

    def _op(self, step: Step, weights: Weights) -> Op:
        op = super()._op(step, weights)
        if op.kind == HOST:
            raise RunError(f"bf16 cannot compute the step {step.output!r} at this image size; use precision='float32'")
        reads_images = isinstance(step, Conv) and step.input == self.plan.input and op.kind == COLUMNS
        if reads_images and images_are_dense(self.plan):  # its weights are laid out as rows of taps
            op.x.channels, op.kernel_w = op.x.channels * op.kernel_w, 1
        return op

    def _scratch_of(self, step: Step, op: Op) -> int:
        if isinstance(step, Conv):
            return packed_floats(step, op.kind, self.kernel)
        return super()._scratch_of(step, op)

    def _new_arena(self) -> Tensor:
        return torch.zeros(self._arena.cells_of_all, dtype=torch.bfloat16)
