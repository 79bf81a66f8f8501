"""A plan as a program of the compiled kernel, at one image size."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ssl_dc.compiled import kernel as ffi
from ssl_dc.compiled.arena import ALIGNMENT, Arena, shapes_of
from ssl_dc.compiled.eager import compute
from ssl_dc.compiled.kernel import Kernel
from ssl_dc.compiled.layout import GATE, HOST, MAXPOOL, MEAN, PACKED, RELU_OF, Weights, kind_of, padded
from ssl_dc.compiled.plan import Conv, Decide, MaxPool, Mean, Plan, Relu, Step


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
        self._arena = Arena(plan, shapes, kernel.vector)
        self._sites = {site.name: index for index, site in enumerate(plan.sites)}
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
                mask = step.gate(values[step.input], step.threshold)
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
                hidden = padded(op.hidden, self.kernel.vector)
                floats = max(
                    floats, (self.kernel.parts + 1) * padded(shapes[step.inputs[0]][1], self.kernel.vector) + hidden
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


class _State:
    """What one image is computed in."""

    def __init__(self, sites: Any, floats: int, scratch: int, masks: int, n_sites: int) -> None:
        self.arena = torch.zeros(floats + ALIGNMENT)
        self.scratch = torch.zeros(scratch + ALIGNMENT)
        self.kept = torch.zeros(masks + 1, dtype=torch.int32)
        self.count = torch.zeros(n_sites + 1, dtype=torch.int32)
        pointers = (tensor.data_ptr() for tensor in (self.arena, self.scratch, self.kept, self.count))
        self.struct = ffi.State(ctypes.cast(sites, ctypes.POINTER(ffi.Site)), *pointers)
