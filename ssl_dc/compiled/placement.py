"""Which steps of a plan the kernel computes at an image size, and how their values lie."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from ssl_dc.backbones.attention import AttentionProducts
from ssl_dc.compiled.activations import Activation
from ssl_dc.compiled.eager import compute
from ssl_dc.compiled.kernel_interface import Kernel
from ssl_dc.compiled.plan import Plan
from ssl_dc.compiled.steps.attention import Attention
from ssl_dc.compiled.steps.base import Step
from ssl_dc.compiled.steps.call import Call
from ssl_dc.compiled.steps.data_movement import Flatten, Rearrange
from ssl_dc.compiled.steps.elementwise import Add, Multiply, Pointwise, Relu, Scale
from ssl_dc.compiled.steps.gates import Decide, Mask
from ssl_dc.compiled.steps.layers import Conv, Linear
from ssl_dc.compiled.steps.normalisation import LayerNorm
from ssl_dc.compiled.steps.pooling import MaxPool, Mean

FIRST, LAST = 1, -1
"""The axis of the channels: after that of the images, as in (1, C, H, W), or the last one, as in (1, T, C)."""


class Placement:
    """Decides which steps are operations of the kernel, and where the channels of each value are.

    Args:
        plan: The plan.
        shapes: The shape of each value for one image, all channels kept, or (); see
            :func:`ssl_dc.compiled.arena.shapes_of`.
        kernel: Gives the widths of a vector and of a block.

    Attributes:
        plan: The plan.
        shapes: The same shapes.
        picked: The values that hold only the open channels of a site, with the name of the site.
        constants: The values that are the same for all images of this size.
        axes: For each value of two to four axes the axis of its channels.
    """

    def __init__(self, plan: Plan, shapes: Mapping[str, tuple[int, ...]], kernel: Kernel) -> None:
        self.plan, self.shapes, self._kernel = plan, shapes, kernel
        self.picked = _picked_values(plan)
        self.constants = self._constants()
        self.axes = self._axes()

    def in_arena(self) -> set[str]:
        """The values that the kernel makes or reads, with the images and the features."""
        touched = {self.plan.input, self.plan.output}
        for step in self.plan.steps:
            if self.in_kernel(step):
                touched |= {*step.inputs, *(() if isinstance(step, Decide) else (step.output,))}
        return touched

    def in_kernel(self, step: Step) -> bool:
        """Whether a step is an operation of the kernel."""
        values = step.inputs if isinstance(step, Decide) else (*step.inputs, step.output)
        if any(value in self.constants or not self.shapes[value] for value in values):
            return False
        if isinstance(step, Decide):
            return step.rule is not None and self._channels_are(step.axis, step.input)
        if isinstance(step, Conv):
            return self._convolves(step) and self._channels_are(FIRST, step.input) and self._adds_equals(step)
        if isinstance(step, Linear):
            return self._channels_are(LAST, step.input)
        if isinstance(step, (MaxPool, Mean)):
            return self._channels_are(FIRST, step.input)
        if isinstance(step, (LayerNorm, Scale)):
            return self._channels_are(step.axis, step.input) and step.input not in self.picked
        if isinstance(step, Add):
            return self._are_alike(step.left, step.right) and not {step.left, step.right} & self.picked.keys()
        if isinstance(step, Multiply):
            return self.factors(step) is not None
        if isinstance(step, Attention):
            whole = all(part.size % self._kernel.vector == 0 for part in step.parts)
            return (
                whole and type(step.products) is AttentionProducts and all(len(self.shapes[value]) == 3 for value in values)
            )
        if isinstance(step, Rearrange):
            return (
                self._channels_are(LAST if step.form == "first" else FIRST, step.input)
                and len(self.shapes[step.input]) == 4
            )
        if isinstance(step, Flatten):
            return self.shapes[step.input][2:] == (1, 1) and step.input not in self.picked
        return isinstance(step, Relu) or (isinstance(step, Pointwise) and isinstance(step.function, Activation))

    def factors(self, step: Multiply) -> tuple[str, str] | None:
        """The map and the value of one pixel that are multiplied; None if they are not such."""
        for whole, pixel in ((step.left, step.right), (step.right, step.left)):
            maps = self._channels_are(FIRST, whole) and self._channels_are(FIRST, pixel)
            if maps and self.shapes[pixel] == (1, self.shapes[whole][1], 1, 1):
                same = self.picked.get(whole) == self.picked.get(pixel)
                return (whole, pixel) if same else None
        return None

    def span(self, value: str) -> int:
        """How many channels of a picked value an entry of the mask stands for."""
        entries = next(site.channels for site in self.plan.sites if site.name == self.picked[value])
        return self.shapes[value][self.axes[value]] // entries

    def _channels_are(self, axis: int, value: str) -> bool:
        """Whether the channels of a value are on an axis; those of (1, C) are on both."""
        return self.axes[value] == axis or (axis == LAST and len(self.shapes[value]) == 2)

    def _convolves(self, step: Conv) -> bool:
        """Whether the kernel has the kind of a convolution. The outputs of a group must fit into a block of weights."""
        if step.groups == 1 or step.is_depthwise:
            return True
        return step.residual is None and len(step.weight) // step.groups <= self._kernel.block

    def _are_alike(self, left: str, right: str) -> bool:
        return (self.shapes[left], self.axes[left]) == (self.shapes[right], self.axes[right])

    def _adds_equals(self, step: Conv) -> bool:
        """Whether a convolution adds nothing, or a residual of the shape of its output: torch can broadcast others."""
        return step.residual is None or self._are_alike(step.residual, step.output)

    def _constants(self) -> dict[str, Any]:
        constants: dict[str, Any] = {}
        for step in self.plan.steps:
            if not isinstance(step, Call):
                continue
            if all(value in constants for value in step.inputs):
                constants[step.output] = compute(step, constants, {})
            elif step.of_shapes and all(self.shapes[value] and value not in self.picked for value in step.inputs):
                empty = {value: torch.empty(self.shapes[value], device="meta") for value in step.inputs}
                constants[step.output] = compute(step, empty, {})
        return constants

    def _axes(self) -> dict[str, int]:
        axes = {self.plan.input: FIRST}
        for step in self.plan.steps:
            if isinstance(step, Decide):
                continue
            ndim = len(self.shapes[step.output])
            if ndim == 3 or isinstance(step, Linear):
                axes[step.output] = LAST
            elif ndim == 2 or not isinstance(step, (LayerNorm, Rearrange, Call, Add, Pointwise, Relu, Mask, Scale)):
                axes[step.output] = FIRST
            elif isinstance(step, LayerNorm):
                axes[step.output] = step.axis
            elif isinstance(step, Rearrange):
                axes[step.output] = LAST if step.form == "last" else FIRST
            elif isinstance(step, Call):
                axes[step.output] = self._axis_read(step.output)
            else:
                axes[step.output] = axes[step.inputs[0]]
        return axes

    def _axis_read(self, value: str) -> int:
        """The axis on which the readers of a value of four axes look for its channels."""
        readers = self.plan.readers(value)
        last = (
            isinstance(step, Linear) or (isinstance(step, (LayerNorm, Decide)) and step.axis == LAST) for step in readers
        )
        return LAST if any(last) else FIRST


def _picked_values(plan: Plan) -> dict[str, str]:
    """The values that hold only the open channels or heads of a site, by the name of the site."""
    picked: dict[str, str] = {}
    for step in plan.steps:
        if isinstance(step, (Conv, Linear)):
            site = step.out_site
        else:  # every other step treats channels, or heads, by themselves
            site = next((picked[value] for value in step.inputs if value in picked), None)
        if site is not None and not isinstance(step, Decide):
            picked[step.output] = site
    return picked
