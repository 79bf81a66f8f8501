"""Turns a plan at one image size into a program of the compiled kernel, and runs it."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ssl_dc.compiled.arena import Arena, Cells, shapes_of
from ssl_dc.compiled.eager import compute, decided
from ssl_dc.compiled.kernel_interface import Kernel, Op, Program, Site, State
from ssl_dc.compiled.layout import GATE, HOST, MAXPOOL, MEAN, PACKED, RELU_OF, Weights, in_kernel, kind_of, padded
from ssl_dc.compiled.plan import Conv, Decide, Linear, MaxPool, Mean, Plan, Relu, Step

ARENAS_BYTES = 256 * 2**20
"""Memory for the activations of the images of a batch that are computed side by side."""
FLOATS_OF_LINE = 16
"""Floats in a cache line. Kernels may read that far past the end of what they need."""


class NativeProgram:
    """A plan, ready to run on images of one size.

    Most steps are operations of the kernel. The others are host steps: the kernel stops before one, torch computes it on
    the kernel's own memory, and the kernel goes on after it.

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
        self._shapes = shapes = shapes_of(plan, image_size)
        self._arena = Arena(plan, shapes, self._cells())
        self._sites = {site.name: index for index, site in enumerate(plan.sites)}
        self._picked = _picked_values(plan)
        ops = [self._op(step, weights) for step in plan.steps]
        self.host_steps = {
            index: weights.step_with(step)
            for index, (step, op) in enumerate(zip(plan.steps, ops, strict=True))
            if op.kind == HOST
        }
        self._ops = (Op * len(ops))(*ops)
        widths = [site.channels for site in plan.sites]
        firsts = [sum(widths[:index]) for index in range(len(widths))]
        self._site_table = (Site * max(1, len(widths)))(*(Site(*pair) for pair in zip(widths, firsts, strict=True)))
        self.n_masks = sum(widths)
        self.features = shapes[plan.output][-1]
        self._program = Program(
            self._ops,
            self._site_table,
            len(ops),
            len(widths),
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
                memory.elsewhere[step.output] = value
                continue
            whole = self._arena.view(step.output, memory.arena)
            channels = value.shape[1]
            whole[:, :channels] = value
            # the kernel reads whole vectors
            whole[:, channels : padded(channels, self.kernel.vector)] = 0

    def _values(self, step: Step, memory: _ImageMemory) -> dict[str, Any]:
        held = {name: self._view(name, memory) for name in step.inputs if self._arena.holds(name)}
        return memory.elsewhere | held

    def _view(self, name: str, memory: _ImageMemory) -> Tensor:
        """A value of the arena, or those of its channels that are present."""
        whole = self._arena.view(name, memory.arena)
        if name not in self._picked:
            return whole
        index = self._sites[self._picked[name]]
        return whole[:, : whole.shape[1] * int(memory.count[index]) // self._site_table[index].channels]

    def _keep(self, site: str, kept: Tensor, memory: _ImageMemory) -> None:
        index = self._sites[site]
        first = self._site_table[index].first
        memory.kept[first : first + len(kept)] = kept
        memory.count[index] = len(kept)

    def _kept(self, site: str, memory: _ImageMemory) -> Tensor:
        index = self._sites[site]
        first = self._site_table[index].first
        return memory.kept[first : first + int(memory.count[index])].long()

    def _image_memory(self) -> _ImageMemory:
        return _ImageMemory(self._site_table, self._new_arena(), self._scratch, self.n_masks, len(self._sites))

    def _cells(self) -> Cells:
        """How values lie in the arena."""
        return Cells(size=4, pixel=self.kernel.vector)

    def _new_arena(self) -> Tensor:
        """Memory for the activations of an image, with their borders."""
        return torch.zeros(self._arena.cells_of_all)

    def _scratch_of(self, step: Step, op: Op) -> int:
        """Floats that an operation needs beside its activations."""
        if op.kind == PACKED and isinstance(step, Conv):
            return int(step.weight.shape[0] * op.kernel_h * op.kernel_w * op.x.stride)
        if op.kind in (GATE, MEAN):
            channels = padded(self._shapes[step.inputs[0]][1], self.kernel.vector)
            return (self.kernel.parts + 1) * channels + padded(int(op.hidden), self.kernel.vector)
        return 0

    def _op(self, step: Step, weights: Weights) -> Op:
        """The operation that computes a step; a host step if the kernel cannot."""
        op = Op(kind=HOST, branch_site=-1, in_site=-1, out_site=-1)
        branch = step.when or step.unless
        if branch is not None:
            op.branch_site, op.unless = self._sites[branch], int(step.unless is not None)
        if not all(self._arena.holds(value) for value in step.inputs):
            return op
        if isinstance(step, Decide):
            self._decide(op, step, weights)
        elif self._arena.holds(step.output):
            op.y = self._arena.activation(step.output)
            if isinstance(step, Conv):
                self._convolve(op, step, weights)
            elif isinstance(step, MaxPool):
                op.kind, op.x = MAXPOOL, self._arena.activation(step.input)
                op.kernel_h, op.kernel_w, op.step = step.kernel, step.kernel, step.stride
                op.pad_h, op.pad_w = step.padding, step.padding
            elif isinstance(step, Mean):
                op.kind, op.x = MEAN, self._arena.activation(step.input)
            elif isinstance(step, Relu) and self._arena.is_map(step.output):
                op.kind, op.x, op.relu = RELU_OF, self._arena.activation(step.input), int(step.relu)
        return op

    def _decide(self, op: Op, step: Decide, weights: Weights) -> None:
        rule = weights.rule(step)
        if rule is None:
            return
        op.kind, op.x, op.site, op.hidden = (
            GATE,
            self._arena.activation(step.input),
            self._sites[step.site.name],
            rule.hidden,
        )
        op.weight, op.bias, op.weight2, op.bias2 = (tensor.data_ptr() for tensor in rule.tensors)

    def _convolve(self, op: Op, step: Conv, weights: Weights) -> None:
        if not in_kernel(step):
            return
        if step.residual is not None and self._shapes[step.residual] != self._shapes[step.output]:
            return  # torch broadcasts the residual; the kernel does not
        op.kind = kind_of(step)
        op.x = self._arena.activation(step.input)
        op.relu, op.step = int(step.relu), step.stride
        op.kernel_h, op.kernel_w = step.weight.shape[2:]
        op.pad_h, op.pad_w = step.padding
        op.in_site = -1 if step.in_site is None else self._sites[step.in_site]
        op.out_site = -1 if step.out_site is None else self._sites[step.out_site]
        if step.residual is not None:
            op.has_residual, op.residual = 1, self._arena.activation(step.residual)
        laid = weights.convolution(step)
        op.weight, op.bias = laid.weight.data_ptr(), laid.bias.data_ptr()
        op.scale = None if laid.scale is None else laid.scale.data_ptr()


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
