"""Runs one route of a backbone as fast as its masks allow."""

from __future__ import annotations

import copy
import math
import threading
from collections.abc import Callable
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

from ssl_dc.backbones.base import Backbone, Masks
from ssl_dc.compiled.capture import capture
from ssl_dc.compiled.eager import EagerRun
from ssl_dc.compiled.fuse import fuse
from ssl_dc.compiled.kernel import Kernel, kernel
from ssl_dc.compiled.layout import Weights, without_weights
from ssl_dc.compiled.native import NativeProgram
from ssl_dc.compiled.plan import Plan
from ssl_dc.errors import RunError
from ssl_dc.gating.cost import CostModel, ImageSize, image_size_of
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
    """A plan, compiled: only that is computed which the masks keep.

    Args:
        plan: Fused.
        cost_model: The cost of its network for images of a size.
        threads: How many threads work at once; by default as many as torch uses.
        backend: What runs it.

    Attributes:
        plan: The steps.
        threads: How many threads work at once.
        why_torch: Why the compiled kernel is not used; empty if it is.

    Raises:
        ValueError: If ``threads`` is no number from 1.
        RunError: If ``native`` is asked for and cannot be had; with the reason.
    """

    def __init__(
        self,
        plan: Plan,
        cost_model: Callable[[ImageSize], CostModel],
        *,
        threads: int | None = None,
        backend: Backend = "auto",
    ) -> None:
        self.threads = torch.get_num_threads() if threads is None else threads
        if not isinstance(self.threads, int) or self.threads < 1:
            raise ValueError(f"threads must be a whole number, at least 1, not {threads!r}")
        self._busy = threading.Lock()
        self.why_torch = "torch was asked for" if backend == "torch" else ""
        self._kernel = self._find_kernel(backend)
        self.plan = plan
        if self._kernel is not None:
            self._weights = Weights(plan, self._kernel)
            self.plan = without_weights(plan)
        self._cost_model = cost_model
        self._costs: dict[ImageSize, CostModel] = {}
        self._programs: dict[tuple[int, int], NativeProgram] = {}

    @property
    def backend(self) -> Literal["native", "torch"]:
        """What runs it."""
        return "torch" if self._kernel is None else "native"

    def __call__(self, images: Tensor) -> Executed:
        """Features and masks of images (N, 3, H, W), float32 on the CPU; of one that is not finite the features are NaN.

        May be called from several Python threads, which then take turns.

        Raises:
            TypeError: If the images are no tensor.
            ValueError: If they are another tensor than that.
        """
        _check_images(images)
        with self._busy:  # the activations are one call's; others wait
            if self._kernel is None:
                features, opened = self._by_torch(images)
            else:
                features, opened = self._program((images.shape[2], images.shape[3]), self._kernel)(images)
        if not math.isfinite(float(images.sum())):
            # what is not a number may lie where nothing is computed: it must not go unseen
            features[~images.flatten(1).isfinite().all(dim=1)] = torch.nan
        return Executed(features, opened, self.plan, self._cost(image_size_of(images)))

    def timed(self, image: Tensor) -> Tensor:
        """Seconds of each step of the plan for an image (3, H, W), float64; 0 for a step that it does without.

        Raises:
            RunError: If torch runs the plan: only the compiled kernel keeps times.
        """
        if self._kernel is None:
            raise RunError(f"only the compiled kernel times its steps, and it is not used: {self.why_torch}")
        return self._program((image.shape[1], image.shape[2]), self._kernel).timed(image)

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

    def _program(self, size: tuple[int, int], kernel: Kernel) -> NativeProgram:
        """The program for images of one size; that of another is given up, since each has activations of its own."""
        if size not in self._programs:
            self._programs = {size: NativeProgram(self.plan, size, kernel, self._weights, self.threads)}
        return self._programs[size]

    @torch.no_grad()
    def _by_torch(self, images: Tensor) -> tuple[Tensor, Tensor]:
        features, opened = [], []
        for image in images:
            run = EagerRun(self.plan)
            features.append(run(image[None]))
            masks = [run.masks[site.name] for site in self.plan.sites]
            opened.append(torch.cat(masks, dim=1) if masks else torch.empty(1, 0))
        return torch.cat(features), torch.cat(opened).to(torch.uint8)

    def _cost(self, size: ImageSize) -> CostModel:
        if size not in self._costs:
            self._costs[size] = self._cost_model(size)
        return self._costs[size]


def compiled(backbone: Backbone, route: Route, *, threads: int | None = None, backend: Backend = "auto") -> Executor:
    """One route of a backbone, compiled: norms folded, and only that computed which the masks keep.

    The results are those of the backbone in evaluation mode, which it is put in, within float32 rounding. The weights are
    copied: what happens to the backbone later does not change them.

    Args:
        backbone: Float32, on the CPU.
        route: Which route.
        threads: How many threads work at once; by default as many as torch uses.
        backend: What runs it.

    Raises:
        RunError: If the backbone cannot be traced, or ``native`` is asked for and cannot be had; with the reason.
    """
    _check(backbone)
    plan = fuse(capture(backbone.eval(), route))
    shadow = copy.deepcopy(backbone).to("meta")  # counts, and holds no weights
    return Executor(plan, shadow.cost_model, threads=threads, backend=backend)


def _check_images(images: Tensor) -> None:
    """Refuse what no network takes."""
    if not isinstance(images, Tensor):
        raise TypeError(f"images must be a torch tensor, float32 (N, 3, H, W), not {type(images).__name__}")
    shaped = images.ndim == 4 and images.shape[1] == 3 and images.shape[2] > 0 and images.shape[3] > 0
    if not shaped or images.dtype is not torch.float32 or images.device.type != "cpu":
        raise ValueError(
            f"images must be float32 (N, 3, H, W) on the CPU, not {images.dtype} {tuple(images.shape)} on {images.device}"
        )


def _check(backbone: Backbone) -> None:
    """Refuse what cannot be compiled."""
    for name, tensor in (*backbone.named_parameters(), *backbone.named_buffers()):
        wrong = tensor.is_floating_point() and tensor.dtype is not torch.float32
        if tensor.device.type != "cpu" or wrong:
            raise RunError(f"what is compiled must be float32 on the CPU; {name} is {tensor.dtype} on {tensor.device}")
