"""A plan as a program of the compiled kernel, at one image size."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from ssl_dc.gating.base import PooledRule
from ssl_dc.inference import kernel as ffi
from ssl_dc.inference.eager import compute
from ssl_dc.inference.kernel import Kernel
from ssl_dc.inference.plan import Conv, Decide, MaxPool, Mean, Plan, Relu, Step

ROWS, COLUMNS, PACKED, MAXPOOL, MEAN, GATE, RELU_OF, HOST = range(8)
"""The kinds of operation; see kernel.c."""
ALIGNMENT = 16
"""Floats in a cache line, which every activation begins at."""


class NativeProgram:
    """A plan, ready to run on images of one size.

    Args:
        plan: The plan.
        image_size: (height, width) of the images.
        kernel: The compiled kernel.
        weights: Shared by the programs of one plan.
        threads: How many work at once.
    """

    def __init__(self, plan: Plan, image_size: tuple[int, int], kernel: Kernel, weights: Weights, threads: int) -> None:
        self.plan, self.kernel = plan, kernel
        self.threads = max(1, min(threads, kernel.max_threads))
        shapes = shapes_of(plan, image_size)
        self._arena = _Arena(plan, shapes, kernel.vector)
        self._sites = {site.name: index for index, site in enumerate(plan.sites)}
        self._masks = plan.sites
        self._rules = weights
        ops = [self._op(step, weights) for step in plan.steps]
        self._host = {index: step for index, (step, op) in enumerate(zip(plan.steps, ops, strict=True)) if op.kind == HOST}
        self._ops = (ffi.Op * len(ops))(*ops)
        widths = [site.channels for site in plan.sites]
        firsts = [sum(widths[:index]) for index in range(len(widths))]
        self._site_table = (ffi.Site * max(1, len(widths)))(*(ffi.Site(*pair) for pair in zip(widths, firsts, strict=True)))
        self.n_masks = sum(widths)
        self.features = shapes[plan.output][-1]
        self._program = ffi.Program(
            self._ops,
            self._site_table,
            len(ops),
            len(widths),
            self.n_masks,
            self.features,
            self._arena.tensor(plan.input),
            self._arena.place(plan.output).offset,
        )
        self._scratch = self._scratch_floats(shapes)
        self._states = [self._state()]

    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Features (N, feature_dim) float32 and masks (N, all sites' channels) uint8 of images (N, 3, H, W).

        One image is shared by all threads; of several, or of those without any step of the host's, each thread takes one at
        a time.
        """
        images = images.contiguous()
        features = torch.empty(len(images), self.features)
        masks = torch.empty(len(images), self.n_masks, dtype=torch.uint8)
        if len(images) == 1 or self._host:
            for image, feature, mask in zip(images, features, masks, strict=True):
                self._one(image, feature, mask)
        elif len(images):
            self._many(images, features, masks)
        return features, masks

    def _many(self, images: Tensor, features: Tensor, masks: Tensor) -> None:
        threads = min(self.threads, len(images))
        while len(self._states) < threads:
            self._states.append(self._state())
        states = (ffi.State * threads)(*(state.struct for state in self._states[:threads]))
        self.kernel.run_many(
            self._program, states, images.data_ptr(), len(images), features.data_ptr(), masks.data_ptr(), threads
        )

    def timed(self, image: Tensor) -> Tensor:
        """Seconds of each step for an image (3, H, W), float64; 0 for one that is not run."""
        seconds = torch.zeros(len(self._ops), dtype=torch.float64)
        masks = torch.empty(self.n_masks, dtype=torch.uint8)
        self._one(image.contiguous(), torch.empty(self.features), masks, seconds)
        return seconds

    def _one(self, image: Tensor, features: Tensor, masks: Tensor, seconds: Tensor | None = None) -> None:
        state = self._states[0]
        given: int | None = image.data_ptr()
        elsewhere: dict[str, Any] = {}
        index = 0
        times = None if seconds is None else seconds.data_ptr()
        run = self.kernel.run_one
        while (index := run(self._program, state.struct, given, index, self.threads, times)) < len(self._ops):
            since = time.perf_counter()
            self._do(self._host[index], state, elsewhere)
            if seconds is not None:
                seconds[index] += time.perf_counter() - since
            given, index = None, index + 1
        self.kernel.take(self._program, state.struct, features.data_ptr(), masks.data_ptr())

    def _do(self, step: Step, state: _State, elsewhere: dict[str, Any]) -> None:
        """A step that is the host's: a gate that is no rule, or what else torch must compute."""
        held = {name: self._arena.view(name, state.arena) for name in step.inputs if self._arena.holds(name)}
        values = elsewhere | held
        if isinstance(step, Decide):
            with torch.no_grad():
                mask = step.gate(values[step.input])
            self._keep(step.site.name, mask[0].nonzero().flatten(), state)
            return
        kept = {name: self._kept(name, state) for name in self._sites}
        with torch.no_grad():
            value = compute(step, values, kept)
        if self._arena.holds(step.output):
            self._arena.view(step.output, state.arena).copy_(value)
        else:
            elsewhere[step.output] = value

    def _keep(self, site: str, kept: Tensor, state: _State) -> None:
        index = self._sites[site]
        first = self._site_table[index].first
        state.kept[first : first + len(kept)] = kept
        state.count[index] = len(kept)

    def _kept(self, site: str, state: _State) -> Tensor:
        index = self._sites[site]
        first = self._site_table[index].first
        return state.kept[first : first + int(state.count[index])].long()

    def _state(self) -> _State:
        return _State(self._site_table, self._arena.floats, self._scratch, self.n_masks, len(self._sites))

    def _scratch_floats(self, shapes: Mapping[str, tuple[int, ...]]) -> int:
        """Room for the largest of what an operation needs beside its activations."""
        floats = 0
        for step, op in zip(self.plan.steps, self._ops, strict=True):
            if op.kind == PACKED and isinstance(step, Conv):
                floats = max(floats, step.weight.shape[0] * op.kernel_h * op.kernel_w * op.x.stride)
            if op.kind in (GATE, MEAN):
                hidden = _padded(op.hidden, self.kernel.vector)
                floats = max(
                    floats, (self.kernel.parts + 1) * _padded(shapes[step.inputs[0]][1], self.kernel.vector) + hidden
                )
        return floats

    def _op(self, step: Step, weights: Weights) -> ffi.Op:
        """A step as an operation."""
        op = ffi.Op(kind=HOST, branch_site=-1, in_site=-1, out_site=-1)
        branch = step.when or step.unless
        if branch is not None:
            op.branch_site, op.unless = self._sites[branch], int(step.unless is not None)
        if not all(self._arena.holds(value) for value in step.inputs):
            return op
        if isinstance(step, Decide):
            self._decide(op, step, weights)
        elif self._arena.holds(step.output):
            op.y = self._arena.tensor(step.output)
            if isinstance(step, Conv):
                self._convolve(op, step, weights)
            elif isinstance(step, MaxPool):
                op.kind, op.x = MAXPOOL, self._arena.tensor(step.input)
                op.kernel_h, op.kernel_w, op.step = step.kernel, step.kernel, step.stride
                op.pad_h, op.pad_w = step.padding, step.padding
            elif isinstance(step, Mean):
                op.kind, op.x = MEAN, self._arena.tensor(step.input)
            elif isinstance(step, Relu) and self._arena.is_map(step.output):
                op.kind, op.x, op.relu = RELU_OF, self._arena.tensor(step.input), int(step.relu)
        return op

    def _decide(self, op: ffi.Op, step: Decide, weights: Weights) -> None:
        rule = weights.rule(step)
        if rule is None:
            return
        op.kind, op.x, op.site, op.hidden = GATE, self._arena.tensor(step.input), self._sites[step.site.name], rule.hidden
        op.weight, op.bias, op.weight2, op.bias2 = (tensor.data_ptr() for tensor in rule.tensors)

    def _convolve(self, op: ffi.Op, step: Conv, weights: Weights) -> None:
        op.kind = kind_of(step)
        op.x = self._arena.tensor(step.input)
        op.relu, op.step = int(step.relu), step.stride
        op.kernel_h, op.kernel_w = step.weight.shape[2:]
        op.pad_h, op.pad_w = step.padding
        op.in_site = -1 if step.in_site is None else self._sites[step.in_site]
        op.out_site = -1 if step.out_site is None else self._sites[step.out_site]
        if step.residual is not None:
            op.has_residual, op.residual = 1, self._arena.tensor(step.residual)
        weight, bias = weights.convolution(step)
        op.weight, op.bias = weight.data_ptr(), bias.data_ptr()


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
                rule = step.gate.pooled_rule()
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
    after = [0, _padded(tensor.shape[dim], multiple) - tensor.shape[dim]]
    return nn.functional.pad(tensor, [0, 0] * (tensor.ndim - 1 - dim) + after)


def _padded(size: int, multiple: int) -> int:
    return -(-size // multiple) * multiple


def shapes_of(plan: Plan, image_size: tuple[int, int]) -> dict[str, tuple[int, ...]]:
    """The shape of each value for one image, all channels kept; () for what is no float32 tensor of one image."""
    values: dict[str, Any] = {plan.input: torch.zeros(1, 3, *image_size)}
    shapes: dict[str, tuple[int, ...]] = {plan.input: tuple(values[plan.input].shape)}
    last = last_reads(plan)
    opened = {site.name: torch.arange(site.channels) for site in plan.sites}
    for index, step in enumerate(plan.steps):
        if isinstance(step, Decide):
            continue
        with torch.no_grad():
            value = (
                torch.zeros(step.shape(values[step.input].shape))
                if isinstance(step, Conv)
                else compute(step, values, opened)
            )
        values[step.output] = value
        fits = isinstance(value, Tensor) and value.dtype is torch.float32 and value.ndim in (2, 4) and len(value) == 1
        shapes[step.output] = tuple(value.shape) if fits else ()
        for name in step.inputs:
            if last[name] == index:
                values.pop(name, None)
    return shapes


def last_reads(plan: Plan) -> dict[str, int]:
    """For each value the index of the last step that reads it; beyond all for the output, and its maker's if none does."""
    last = {step.output: index for index, step in enumerate(plan.steps)}
    for index, step in enumerate(plan.steps):
        for value in step.inputs:
            last[value] = index
    last[plan.output] = len(plan.steps)
    return last


@dataclass(frozen=True)
class Place:
    """Where a value lies in the arena.

    Attributes:
        offset: Of its first pixel, in floats.
        shape: (channels, height, width).
        steps: Floats from a channel, a row and a pixel to the next.
    """

    offset: int
    shape: tuple[int, int, int]
    steps: tuple[int, int, int]


class _Arena:
    """Which value lies where: values of one shape follow each other in one place, whose border of zeros is never written.

    Args:
        plan: The plan.
        shapes: The shape of each value.
        vector: Floats in a vector.
    """

    def __init__(self, plan: Plan, shapes: Mapping[str, tuple[int, ...]], vector: int) -> None:
        self.floats = 0
        self._vector = vector
        self._places: dict[str, Place] = {}
        self._flat: set[str] = set()
        borders = {value: _border(plan, value) for value in shapes}
        free: dict[tuple[int, ...], list[int]] = {}
        last = last_reads(plan)
        self._put(plan.input, shapes[plan.input], borders[plan.input], _is_planar(plan), free)
        for index, step in enumerate(plan.steps):
            if not isinstance(step, Decide) and step.output not in self._places and _fits(plan, step.output, shapes):
                self._put(step.output, shapes[step.output], borders[step.output], False, free)
            for value in set(step.inputs):
                if last[value] == index and value in self._places and value != plan.input:
                    key = self._key(shapes[value], borders[value])
                    free.setdefault(key, []).append(self._start(self._places[value], borders[value]))

    def holds(self, value: str) -> bool:
        """Whether a value lies here; what does not is kept by the host."""
        return value in self._places

    def is_map(self, value: str) -> bool:
        """Whether a value is (1, C, H, W), and not (1, C)."""
        return value not in self._flat

    def place(self, value: str) -> Place:
        """Where a value lies."""
        return self._places[value]

    def tensor(self, value: str) -> ffi.Tensor:
        """A value as the kernel sees it."""
        place = self._places[value]
        (channels, height, width), (plane, line, stride) = place.shape, place.steps
        return ffi.Tensor(place.offset, height, width, channels, stride, line, plane)

    def view(self, value: str, arena: Tensor) -> Tensor:
        """A value as torch sees it: (1, C, H, W) or (1, C)."""
        place = self._places[value]
        if value in self._flat:
            return arena[place.offset : place.offset + place.shape[0]][None]
        return arena.as_strided((1, *place.shape), (0, *place.steps), place.offset)

    def _put(
        self, value: str, shape: tuple[int, ...], border: int, planar: bool, free: dict[tuple[int, ...], list[int]]
    ) -> None:
        """Find a place for a value: one that a value of its shape has left, or new room."""
        if len(shape) == 2:
            shape = (*shape, 1, 1)
            self._flat.add(value)
        channels, height, width = shape[1:]
        steps = self._steps(shape, border, planar)
        size = max(channels * steps[0], (height + 2 * border) * steps[1])
        left = free.get(self._key(shape, border))
        start = left.pop() if left and not planar else self.floats
        if start == self.floats:
            self.floats += _padded(size, ALIGNMENT) + ALIGNMENT
        self._places[value] = Place(start + border * (steps[1] + steps[2]), (channels, height, width), steps)

    def _steps(self, shape: tuple[int, ...], border: int, planar: bool) -> tuple[int, int, int]:
        """Floats from a channel, a row and a pixel to the next."""
        channels, height, width = shape[1:]
        if planar:
            return (height + 2 * border) * (width + 2 * border), width + 2 * border, 1
        pixel = _padded(channels, self._vector)
        return 1, (width + 2 * border) * pixel, pixel

    def _start(self, place: Place, border: int) -> int:
        return place.offset - border * (place.steps[1] + place.steps[2])

    def _key(self, shape: tuple[int, ...], border: int) -> tuple[int, ...]:
        return (*shape, *(1,) * (4 - len(shape)), border)


class _State:
    """What one image is computed in."""

    def __init__(self, sites: Any, floats: int, scratch: int, masks: int, n_sites: int) -> None:
        self.arena = torch.zeros(floats + ALIGNMENT)
        self.scratch = torch.zeros(scratch + ALIGNMENT)
        self.kept = torch.zeros(masks + 1, dtype=torch.int32)
        self.count = torch.zeros(n_sites + 1, dtype=torch.int32)
        pointers = (tensor.data_ptr() for tensor in (self.arena, self.scratch, self.kept, self.count))
        self.struct = ffi.State(ctypes.cast(sites, ctypes.POINTER(ffi.Site)), *pointers)


def _border(plan: Plan, value: str) -> int:
    """The widest padding of the convolutions that read a value."""
    return max((max(reader.padding) for reader in plan.readers(value) if isinstance(reader, Conv)), default=0)


def _is_planar(plan: Plan) -> bool:
    """Whether the images may lie channel after channel, as they come: all that read them can pick single floats."""
    return all(isinstance(step, Conv) and kind_of(step) == COLUMNS for step in plan.readers(plan.input))


def _fits(plan: Plan, value: str, shapes: Mapping[str, tuple[int, ...]]) -> bool:
    """Whether the kernel can hold a value; one (1, C) only if the kernel makes it, or it is the output."""
    made_here = value == plan.output or all(isinstance(step, Mean) for step in plan.makers(value))
    return len(shapes[value]) == 4 or (len(shapes[value]) == 2 and made_here)
