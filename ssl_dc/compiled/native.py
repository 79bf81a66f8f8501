"""Turns a plan at one image size into a program of the compiled kernel, and runs it."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ssl_dc.compiled.activations import RELU, Activation
from ssl_dc.compiled.arena import Arena, Cells, shapes_of
from ssl_dc.compiled.eager import compute, decided, picked
from ssl_dc.compiled.kernel_interface import Kernel, Op, Program, Site, State
from ssl_dc.compiled.layout import (
    ACTIVATE,
    ADD,
    ATTENTION,
    DEPTHWISE,
    GATE,
    HOST,
    LAYER_NORM,
    MAXPOOL,
    MEAN,
    MULTIPLY,
    NOTHING,
    PACKED,
    ROWS,
    SMALL_GROUPS,
    Weights,
    as_convolution,
    padded,
)
from ssl_dc.compiled.placement import Placement
from ssl_dc.compiled.plan import Plan
from ssl_dc.compiled.steps.attention import Attention
from ssl_dc.compiled.steps.base import Step
from ssl_dc.compiled.steps.data_movement import Flatten, Rearrange
from ssl_dc.compiled.steps.elementwise import Add, Multiply, Pointwise, Relu, Scale
from ssl_dc.compiled.steps.gates import Decide
from ssl_dc.compiled.steps.layers import Conv, Linear
from ssl_dc.compiled.steps.normalisation import LayerNorm
from ssl_dc.compiled.steps.pooling import MaxPool, Mean

ARENAS_BYTES = 256 * 2**20
"""Memory for the activations of the images of a batch that are computed side by side."""
FLOATS_OF_LINE = 16
"""Floats in a cache line. Kernels may read that far past the end of what they need."""


class NativeProgram:
    """A plan, ready to run on images of one size.

    Most steps are operations of the kernel. The others are host steps: the kernel stops before one, torch computes it on
    the kernel's own memory, and the kernel goes on after it. What is the same for all images of the size is computed once.

    Args:
        plan: The plan.
        image_size: (height, width) of the images.
        kernel: The compiled kernel.
        weights: The weights of the plan; the programs of a plan share them.
        threads: How many threads work at once.

    Attributes:
        host_steps: The host steps by their index in the plan.
    """

    def __init__(self, plan: Plan, image_size: tuple[int, int], kernel: Kernel, weights: Weights, threads: int) -> None:
        self.plan, self.kernel = plan, kernel
        self.threads = max(1, min(threads, kernel.max_threads))
        shapes = shapes_of(plan, image_size)
        self._placement = Placement(plan, shapes, kernel)
        self._arena = Arena(self._placement, self._cells())
        self._sites = {site.name: index for index, site in enumerate(plan.sites)}
        self._wide: dict[tuple[str, int], int] = {}
        ops = [self._op(step, weights) for step in plan.steps]
        self.host_steps = {
            index: weights.step_with(step)
            for index, (step, op) in enumerate(zip(plan.steps, ops, strict=True))
            if op.kind == HOST
        }
        self._ops = (Op * len(ops))(*ops)
        table = self._sites_of(plan)
        self._site_table = (Site * max(1, len(table)))(*table)
        self.n_masks = sum(site.channels for site in plan.sites)
        self.features = shapes[plan.output][-1]
        self._program = Program(
            self._ops,
            self._site_table,
            len(ops),
            len(plan.sites),
            self.n_masks,
            self.features,
            self._arena.activation(plan.input),
            self._arena.place(plan.output).offset,
        )
        self._scratch = max(self._scratch_of(*pair) for pair in zip(plan.steps, ops, strict=True))
        self._images = [self._image_memory()]

    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Features (N, feature_dim) float32 and open entries (N, entries of all masks) uint8 of images (N, 3, H, W).

        All threads share a single image. Of several images each thread takes one at a time.
        """
        images = images.contiguous()
        features = torch.empty(len(images), self.features)
        opened = torch.empty(len(images), self.n_masks, dtype=torch.uint8)
        if not len(images):
            return features, opened
        if len(images) == 1:
            self._one(images[0], features[0], opened[0])
        elif self.host_steps and len(images):
            at_once = max(self.threads, ARENAS_BYTES // (4 * self._arena.cells_of_all))
            for chunk in zip(images.split(at_once), features.split(at_once), opened.split(at_once), strict=True):
                self._side_by_side(*chunk)
        else:
            self._run_many(images, features, opened, min(self.threads, len(images)), None)
        return features, opened

    def seconds(self, image: Tensor) -> Tensor:
        """Seconds of each step for an image (3, H, W), float64; 0 for a step that is not run."""
        seconds = torch.zeros(len(self._ops), dtype=torch.float64)
        opened = torch.empty(self.n_masks, dtype=torch.uint8)
        self._one(image.contiguous(), torch.empty(self.features), opened, seconds)
        return seconds

    def _one(self, image: Tensor, features: Tensor, opened: Tensor, seconds: Tensor | None = None) -> None:
        """Run a single image, and take the time of each step if asked to."""
        memory = self._images[0]
        memory.elsewhere.clear()
        start: int | None = image.data_ptr()
        index = 0
        times = None if seconds is None else seconds.data_ptr()
        run = self.kernel.run_one
        while (index := run(self._program, memory.state, start, index, self.threads, times)) < len(self._ops):
            since = time.perf_counter()
            self._do(self.host_steps[index], [memory])
            if seconds is not None:
                seconds[index] += time.perf_counter() - since
            start, index = None, index + 1
        self.kernel.take(self._program, memory.state, features.data_ptr(), opened.data_ptr())

    def _side_by_side(self, images: Tensor, features: Tensor, opened: Tensor) -> None:
        """Run a batch with host steps: all images reach a host step before it is done for all of them together."""
        positions = torch.zeros(len(images), dtype=torch.int32)
        for memory in self._images:
            memory.elsewhere.clear()
        while True:
            self._run_many(images, features, opened, len(images), positions)
            index = int(positions.min())
            if index > len(self._ops):
                break
            waiting = (positions == index).nonzero().flatten()
            self._do(self.host_steps[index], [self._images[number] for number in waiting.tolist()])
            positions[waiting] = index + 1

    def _run_many(self, images: Tensor, features: Tensor, opened: Tensor, memories: int, positions: Tensor | None) -> None:
        while len(self._images) < memories:
            self._images.append(self._image_memory())
        self.kernel.run_many(
            self._program,
            (State * memories)(*(memory.state for memory in self._images[:memories])),
            images.data_ptr(),
            len(images),
            features.data_ptr(),
            opened.data_ptr(),
            None if positions is None else positions.data_ptr(),
            min(self.threads, len(images)),
        )

    @torch.no_grad()
    def _do(self, step: Step, images: Sequence[_ImageMemory]) -> None:
        """Do a host step for some images: a gate in one call for all of them, any other step image by image."""
        inputs = [self._values(step, memory) for memory in images]
        if isinstance(step, Decide):
            mask = decided(step, [values[step.input] for values in inputs])
            for memory, row in zip(images, mask, strict=True):
                self._keep(step.site.name, row.nonzero().flatten(), memory)
            return
        for memory, values in zip(images, inputs, strict=True):
            value = compute(step, values, _KeptOf(partial(self._kept, memory=memory)))
            if not self._arena.holds(step.output):
                memory.elsewhere[step.output] = _outside(value, memory.arena)
                continue
            whole = self._arena.view(step.output, memory.arena)
            axis = self._placement.axes[step.output]
            channels = value.shape[axis]
            whole.narrow(axis, 0, channels).copy_(value)
            end = min(padded(channels, self.kernel.vector), whole.shape[axis])  # the kernel reads whole vectors
            whole.narrow(axis, channels, end - channels).zero_()

    def _values(self, step: Step, memory: _ImageMemory) -> dict[str, Any]:
        held = {name: self._view(name, memory) for name in step.inputs if self._arena.holds(name)}
        return self._placement.constants | memory.elsewhere | held

    def _view(self, name: str, memory: _ImageMemory) -> Tensor:
        """A value of the arena, or those of its channels that are present."""
        whole = self._arena.view(name, memory.arena)
        site = self._placement.picked.get(name)
        if site is None:
            return whole
        index, axis = self._sites[site], self._placement.axes[name]
        return whole.narrow(axis, 0, whole.shape[axis] * int(memory.count[index]) // self._site_table[index].channels)

    def _keep(self, site: str, kept: Tensor, memory: _ImageMemory) -> None:
        index = self._sites[site]
        first = self._site_table[index].first
        memory.kept[first : first + len(kept)] = kept
        memory.count[index] = len(kept)
        for (name, span), wide in self._wide.items():
            if name == site:
                site_with_span = self._site_table[wide]
                channels, first = picked(torch.arange(site_with_span.channels), 0, kept, span), site_with_span.first
                memory.kept[first : first + len(channels)] = channels
                memory.count[wide] = len(channels)

    def _site(self, name: str | None, span: int = 1) -> int:
        """Index of the list of open entries of a site, or of the channels that these stand for; -1 without a site."""
        if name is None or span == 1:
            return -1 if name is None else self._sites[name]
        return self._wide.setdefault((name, span), len(self._sites) + len(self._wide))

    def _sites_of(self, plan: Plan) -> list[Site]:
        """The table of sites: those of the plan, then the channels that their entries stand for."""
        sites = {site.name: site for site in plan.sites}
        wanted = [*((name, 1) for name in sites), *self._wide]
        table: list[Site] = []
        first = 0
        for name, span in wanted:
            table.append(Site(sites[name].channels * span, first, span, -1))
            first += sites[name].channels * span
        for (name, _), index in self._wide.items():
            site = table[self._sites[name]]
            table[index].wider, site.wider = site.wider, index
        return table

    def _kept(self, site: str, memory: _ImageMemory) -> Tensor:
        index = self._sites[site]
        first = self._site_table[index].first
        return memory.kept[first : first + int(memory.count[index])].long()

    def _image_memory(self) -> _ImageMemory:
        entries = sum(site.channels for site in self._site_table)
        return _ImageMemory(self._site_table, self._new_arena(), self._scratch, entries, len(self._site_table))

    def _cells(self) -> Cells:
        """How values lie in the arena."""
        return Cells(size=4, pixel=self.kernel.vector)

    def _new_arena(self) -> Tensor:
        """Memory for the activations of an image, with their borders."""
        return torch.zeros(self._arena.cells_of_all)

    def _scratch_of(self, step: Step, op: Op) -> int:  # noqa: ARG002  # kernel_int8.c needs it
        """Floats that an operation needs beside its activations."""
        taps, outputs = int(op.kernel_h * op.kernel_w), padded(op.y.channels, self.kernel.vector)
        if op.kind == PACKED:
            return int(op.y.channels * taps * padded(op.x.channels, self.kernel.vector))
        if op.kind == ROWS:
            return int(outputs * (op.x.channels * taps + 1))
        if op.kind == SMALL_GROUPS:
            return int(outputs * (taps * op.group_inputs + 1))
        if op.kind == DEPTHWISE:
            pixels = (op.x.height + 2 * op.pad_h) * (op.x.width + 2 * op.pad_w)
            return int(outputs * (taps + 1 + pixels))
        if op.kind == ATTENTION:
            return int(self.threads * self.kernel.queries * padded(op.residual.height, self.kernel.vector))
        if op.kind in (GATE, MEAN):
            channels = int(op.x.stride)
            return int((self.kernel.parts + 2) * channels + padded(op.hidden, self.kernel.vector))
        return 0

    def _op(self, step: Step, weights: Weights) -> Op:
        """The operation that computes a step; a host step if the kernel cannot."""
        op = Op(kind=HOST, branch_site=-1, in_site=-1, out_site=-1)
        branch = step.when or step.unless
        if branch is not None:
            op.branch_site, op.unless = self._sites[branch], int(step.unless is not None)
        if step.output in self._placement.constants:
            op.kind = NOTHING
        elif isinstance(step, Decide):
            self._decide(op, step, weights)
        elif self._placement.in_kernel(step):
            op.y = self._arena.activation(step.output)
            if isinstance(step, (Conv, Linear)):
                self._convolve(op, as_convolution(step), weights)
            else:
                self._compute(op, step, weights)
        return op

    def _decide(self, op: Op, step: Decide, weights: Weights) -> None:
        rule = weights.rule(step)
        if rule is None or not self._placement.in_kernel(step):
            return
        op.kind, op.x = GATE, self._arena.activation(step.input)
        op.site, op.hidden = self._sites[step.site.name], rule.hidden
        op.weight, op.bias, op.weight2, op.bias2 = (tensor.data_ptr() for tensor in rule.tensors)

    def _convolve(self, op: Op, step: Conv, weights: Weights) -> None:
        op.kind = weights.kind(step)
        op.x = self._arena.activation(step.input)
        op.activation, op.step = 0 if step.activation is None else step.activation.number, step.stride
        op.kernel_h, op.kernel_w = step.weight.shape[2:]
        op.pad_h, op.pad_w = step.padding
        op.group_inputs, op.group_outputs = step.weight.shape[1], len(step.weight) // step.groups
        op.in_site = self._site(step.in_site, step.in_span)
        op.out_site = self._site(step.out_site, step.out_span)
        if step.residual is not None:
            op.has_residual, op.residual = 1, self._arena.activation(step.residual)
        self._weigh(op, step, weights)

    def _weigh(self, op: Op, step: Conv | LayerNorm | Scale, weights: Weights) -> None:
        laid = weights.of(step)
        op.weight, op.bias = laid.weight.data_ptr(), laid.bias.data_ptr()
        op.scale = None if laid.scale is None else laid.scale.data_ptr()

    def _compute(self, op: Op, step: Step, weights: Weights) -> None:
        """Fill in an operation that does not convolve."""
        value = step.inputs[0]
        if isinstance(step, MaxPool):
            op.kind = MAXPOOL
            op.kernel_h, op.kernel_w, op.step = step.kernel, step.kernel, step.stride
            op.pad_h, op.pad_w = step.padding, step.padding
        elif isinstance(step, Mean):
            op.kind = MEAN
        elif isinstance(step, (Relu, Flatten, Rearrange)):
            op.kind, op.activation = ACTIVATE, RELU.number if isinstance(step, Relu) and step.relu else 0
        elif isinstance(step, Pointwise) and isinstance(step.function, Activation):
            op.kind, op.activation = ACTIVATE, step.function.number
        elif isinstance(step, Add):
            op.kind, op.residual = ADD, self._arena.activation(step.right)
        elif isinstance(step, Multiply) and (factors := self._placement.factors(step)):
            value, pixel = factors
            op.kind, op.has_residual, op.residual = MULTIPLY, 1, self._arena.activation(pixel)
        elif isinstance(step, (LayerNorm, Scale)):
            op.kind = LAYER_NORM if isinstance(step, LayerNorm) else MULTIPLY
            op.eps = step.eps if isinstance(step, LayerNorm) else 0
            self._weigh(op, step, weights)
        op.x = self._arena.activation(value)
        if isinstance(step, Attention):
            self._attend(op, step)
        elif value in self._placement.picked:
            op.in_site = self._site(self._placement.picked[value], self._placement.span(value))

    def _attend(self, op: Op, step: Attention) -> None:
        """Fill in attention: queries are x, keys the residual, values z."""
        op.kind = ATTENTION
        op.heads = self._placement.shapes[step.queries.input][-1] // step.queries.span
        op.head, op.value_head = step.queries.size, step.values.size
        op.in_site = self._site(self._placement.picked.get(step.queries.input))
        op.scale_of_scores = op.head**-0.5 if step.products.scale is None else step.products.scale
        op.spans[:] = [part.span for part in step.parts]
        op.x, op.residual, op.z = (self._arena.activation(part.input) for part in step.parts)
        for place, part in zip((op.x, op.residual, op.z), step.parts, strict=True):
            place.offset += part.first


def _outside(value: Any, arena: Tensor) -> Any:
    """A value without views of the arena, whose places are used again."""
    if isinstance(value, (tuple, list)):
        return type(value)(_outside(each, arena) for each in value)
    inside = isinstance(value, Tensor) and value.untyped_storage().data_ptr() == arena.untyped_storage().data_ptr()
    return value.clone() if inside else value


class _KeptOf(dict[str, Tensor]):
    """The open entries of sites by name, each read when it is asked for.

    Args:
        read: Gives the open entries of a site.
    """

    def __init__(self, read: Callable[[str], Tensor]) -> None:
        super().__init__()
        self._read = read

    def __missing__(self, name: str) -> Tensor:
        return self._read(name)


class _ImageMemory:
    """The memory in which one image is computed.

    Attributes:
        arena: The activations.
        kept: For each site the indices of the open entries.
        count: For each site how many entries are open.
        state: The same as the kernel takes it.
        elsewhere: Values that do not lie in the arena, by name.
    """

    def __init__(self, sites: Any, arena: Tensor, scratch: int, masks: int, n_sites: int) -> None:
        self.arena = arena
        self.scratch = torch.zeros(scratch + FLOATS_OF_LINE)
        self.kept = torch.zeros(masks + 1, dtype=torch.int32)
        self.count = torch.zeros(n_sites + 1, dtype=torch.int32)
        pointers = (tensor.data_ptr() for tensor in (self.arena, self.scratch, self.kept, self.count))
        self.state = State(ctypes.cast(sites, ctypes.POINTER(Site)), *pointers)
        self.elsewhere: dict[str, Any] = {}
