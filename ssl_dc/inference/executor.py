"""Runs one route of a backbone as fast as its masks allow."""

from __future__ import annotations

import copy
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

from ssl_dc.backbones.base import Backbone, Masks
from ssl_dc.errors import RunError
from ssl_dc.gating.cost import CostModel
from ssl_dc.inference.capture import capture
from ssl_dc.inference.eager import EagerRun
from ssl_dc.inference.fuse import fuse
from ssl_dc.inference.kernel import Kernel, kernel
from ssl_dc.inference.native import NativeProgram, Weights, without_weights
from ssl_dc.inference.plan import Plan
from ssl_dc.routes import Route

Backend = Literal["auto", "native", "torch"]
"""``native``: the compiled kernel; ``torch``: step by step; ``auto``: the kernel where there is a compiler, else torch."""


class Executed:
    """What a compiled network gives for a batch.

    Attributes:
        features: (N, feature_dim), float32.
        masks: For each gated site the mask (N, channels), in {0, 1}.
    """

    def __init__(self, features: Tensor, open_entries: Tensor, plan: Plan, cost: CostModel) -> None:
        self.features = features
        self._open, self._plan, self._cost = open_entries, plan, cost

    @cached_property
    def masks(self) -> Masks:
        """For each gated site the mask (N, channels), float32 in {0, 1}."""
        sites = self._plan.sites
        parts = self._open.float().split([site.channels for site in sites], dim=1)
        return {site.name: part for site, part in zip(sites, parts, strict=True)}

    @cached_property
    def macs(self) -> Tensor:
        """What each image cost, (N,) float64, in MACs."""
        if not self._plan.sites:
            return torch.full((len(self.features),), self._cost.dense_macs, dtype=torch.float64)
        return self._cost.gated_macs(self.masks)

    @cached_property
    def ratio(self) -> Tensor:
        """The same as a share of the dense cost, (N,) float64."""
        return self.macs / self._cost.dense_macs


class Executor:
    """One route of a backbone, compiled: norms folded, and only that computed which the masks keep.

    The results are those of the backbone in evaluation mode, which it is put in, within float32 rounding. The weights are
    copied: what happens to the backbone later does not change them.

    Args:
        backbone: In evaluation mode, float32, on the CPU.
        route: Which route.
        threads: How many threads work at once; by default as many as torch uses.
        backend: What runs it.

    Attributes:
        plan: The steps.
        why_torch: Why the compiled kernel is not used, where it was wanted; else empty.

    Raises:
        RunError: If the backbone cannot be traced, or ``native`` is asked for and cannot be had; with the reason.
    """

    def __init__(
        self, backbone: Backbone, route: Route, *, threads: int | None = None, backend: Backend = "auto"
    ) -> None:
        _check(backbone)
        self.threads = torch.get_num_threads() if threads is None else threads
        self.plan = fuse(capture(backbone.eval(), route))
        self.why_torch = "" if backend != "torch" else "torch was asked for"
        self._kernel = self._find_kernel(backend)
        if self._kernel is not None:
            self._weights = Weights(self.plan, self._kernel)
            self.plan = without_weights(self.plan)
        self._shadow = copy.deepcopy(backbone).to("meta")
        self._costs: dict[int, CostModel] = {}
        self._programs: dict[tuple[int, int], NativeProgram] = {}

    @property
    def backend(self) -> Literal["native", "torch"]:
        """What runs it."""
        return "torch" if self._kernel is None else "native"

    def __call__(self, images: Tensor) -> Executed:
        """Features and masks of images (N, 3, H, W), float32 on the CPU.

        Raises:
            ValueError: If the images are not that.
        """
        if images.ndim != 4 or images.shape[1] != 3 or images.dtype is not torch.float32 or images.device.type != "cpu":
            raise ValueError(
                f"images must be float32 (N, 3, H, W) on the CPU, not {images.dtype} {tuple(images.shape)} on {images.device}"
            )
        features, opened = self._natively(images) if self._kernel is not None else self._by_torch(images)
        return Executed(features, opened, self.plan, self._cost(images.shape[-1]))

    def _find_kernel(self, backend: Backend) -> Kernel | None:
        if backend == "torch":
            return None
        try:
            return kernel()
        except RunError as error:
            if backend == "native":
                raise
            self.why_torch = str(error)
            return None

    def _natively(self, images: Tensor) -> tuple[Tensor, Tensor]:
        size = (images.shape[2], images.shape[3])
        program = self._programs.get(size)
        if program is None:
            assert self._kernel is not None  # noqa: S101  # for the type checker
            program = NativeProgram(self.plan, size, self._kernel, self._weights, self.threads)
            self._programs = {size: program}  # one size at a time: each has activations of its own
        return program(images)

    @torch.no_grad()
    def _by_torch(self, images: Tensor) -> tuple[Tensor, Tensor]:
        features, opened = [], []
        for image in images:
            run = EagerRun(self.plan)
            features.append(run(image[None]))
            masks = [run.masks[site.name] for site in self.plan.sites]
            opened.append(torch.cat(masks, dim=1) if masks else torch.empty(1, 0))
        return torch.cat(features), torch.cat(opened).to(torch.uint8)

    def _cost(self, size: int) -> CostModel:
        if size not in self._costs:
            self._costs[size] = self._shadow.cost_model(size)
        return self._costs[size]


def _check(backbone: Backbone) -> None:
    """Refuse what cannot be compiled."""
    for name, tensor in (*backbone.named_parameters(), *backbone.named_buffers()):
        wrong = tensor.is_floating_point() and tensor.dtype is not torch.float32
        if tensor.device.type != "cpu" or wrong:
            raise RunError(f"what is compiled must be float32 on the CPU; {name} is {tensor.dtype} on {tensor.device}")
