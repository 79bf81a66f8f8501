"""Runs one route of a backbone and computes only what its masks keep."""

from __future__ import annotations

import copy
import math
import os
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property

import torch
from torch import Tensor, nn

from ssl_dc.backbones.base import Backbone, Masks
from ssl_dc.compiled.backends import AUTO, choose
from ssl_dc.compiled.bf16_plan import in_bf16
from ssl_dc.compiled.capture import capture
from ssl_dc.compiled.fuse import fuse
from ssl_dc.compiled.int8_plan import Int8Plan
from ssl_dc.compiled.kernel import largest_weight, multiplies_bf16
from ssl_dc.compiled.plan import Plan
from ssl_dc.compiled.precisions import BF16, FLOAT32, INT8
from ssl_dc.compiled.quantise import USUAL, Recipe, budgets_of, quantise
from ssl_dc.compiled.steps.base import Step
from ssl_dc.compiled.steps.gates import Decide, Dial, Mask
from ssl_dc.compiled.steps.layers import Conv
from ssl_dc.compiled.torch_threads import torch_threads
from ssl_dc.errors import CalibrationWarning, RunError, SlowerWarning
from ssl_dc.gating.base import check_budgets, warn_beyond
from ssl_dc.gating.cost import CostModel, ImageSize, height_and_width, image_size_of
from ssl_dc.gating.sites import GateSite
from ssl_dc.image_batches import check_images, not_finite, warn_not_finite
from ssl_dc.native.fork_safe import ForkSafeLock
from ssl_dc.routes import Budget, Route

DENSE_HAS_NO_BUDGET = "a network without gates has no budget"


class Executed:
    """The results of a compiled network for a batch.

    Attributes:
        features: (N, feature_dim), float32.
        masks: For each gated site the mask (N, channels), in {0, 1}.
    """

    def __init__(self, features: Tensor, open_entries: Tensor, sites: Sequence[GateSite], cost: CostModel) -> None:
        self.features = features
        self._open, self._sites, self._cost = open_entries, sites, cost

    @cached_property
    def masks(self) -> Masks:
        """For each gated site the mask (N, channels), float32 in {0, 1}."""
        parts = self._open.float().split([site.channels for site in self._sites], dim=1)
        return {site.name: part for site, part in zip(self._sites, parts, strict=True)}

    @cached_property
    def macs(self) -> Tensor:
        """The cost of each image, (N,) float64, in MACs."""
        if not self._sites:
            return torch.full((len(self.features),), self._cost.dense_macs, dtype=torch.float64)
        return self._cost.gated_macs(self.masks)

    @cached_property
    def ratio(self) -> Tensor:
        """The same as a share of the dense cost, (N,) float64."""
        return self.macs / self._cost.dense_macs

    def __repr__(self) -> str:
        """How many images, how wide the features, how many masks and, with gates, the mean cost."""
        images, width = self.features.shape
        if not self._sites:
            return f"Executed({images} images, {width} features, dense)"
        cost = f", mean ratio {float(self.ratio.mean()):.4f}" if images else ""
        return f"Executed({images} images, {width} features, {len(self._sites)} masks{cost})"


class Executor:
    """A compiled plan. It can be pickled and copied if the gates and modules in the plan can.

    Args:
        plan: A fused plan, in any precision.
        cost_model: Gives the cost of the network at an image size.
        threads: How many threads work at once; by default as many as torch uses.
        backend: A name of :data:`ssl_dc.compiled.backends.BACKENDS`, or ``auto`` for the first that is available.

    Attributes:
        threads: How many threads work at once.
        precision: ``float32``, ``bf16`` or ``int8``: in which the plan multiplies.
        backend: The name of the backend that runs the plan.
        why_torch: Why no faster backend is used; empty if the fastest is.

    Raises:
        ValueError: If ``threads`` is not a whole number from 1, or there is no such backend.
        RunError: If the named backend is not available; with the reason.
    """

    def __init__(
        self, plan: Plan, cost_model: Callable[[ImageSize], CostModel], *, threads: int | None = None, backend: str = AUTO
    ) -> None:
        self.threads = torch.get_num_threads() if threads is None else threads
        if not isinstance(self.threads, int) or self.threads < 1:
            raise ValueError(f"threads must be a whole number, at least 1, not {threads!r}")
        self.precision = plan.precision
        chosen, passed_over = choose(backend, self.precision)
        self.backend = chosen.name
        self.why_torch = "; ".join(passed_over.values())
        self._asked_for, self._device = backend, chosen.device
        self._compiled_budget = None if plan.dial is None else plan.dial.budget
        self._dial = None if plan.dial is None else Dial(self._compiled_budget)
        own = plan if self._dial is None else plan.with_dial(self._dial)
        self._gates = [step.gate for step in plan.steps if isinstance(step, Decide)]
        self._last_asked: Budget = None
        self._runner = chosen.build(own, self.threads)
        self._cost_model = cost_model
        self._costs: dict[ImageSize, CostModel] = {}
        self._one_call_at_a_time = ForkSafeLock()
        self._process = os.getpid()

    @property
    def plan(self) -> Plan:
        """The steps; a backend may keep their weights elsewhere."""
        return self._runner.plan

    @property
    def sites_that_save_nothing(self) -> list[str]:
        """Names of the gate sites whose mask is applied to layers that are computed whole, in order."""
        return list(dict.fromkeys(step.site.name for step in self.plan.steps if isinstance(step, Mask)))

    def __call__(self, images: Tensor, budget: float | Sequence[float] | None = None) -> Executed:
        """Features and masks of images (N, 3, H, W), float32.

        The features of an image that is not finite are NaN, and a :class:`RuntimeWarning` names it. Several Python threads
        may call it; they take turns. A forked child may call it, too.

        Args:
            images: The images.
            budget: What they may cost, as a share of the dense cost in (0, 1]: one number, or one for each image. By
                default the budget that was compiled. Nothing is compiled again.

        Raises:
            TypeError: If the images are not a tensor, or not float32.
            ValueError: If they have another shape or device, or a budget is not such, or the route is dense.
        """
        check_images(images, device=self._device)
        self._warn_of_another_size(images, stacklevel=2)
        with self._one_call_at_a_time:
            budgets = self._budgets(budget, images)
            if os.getpid() == self._process:
                features, opened, faulty = self._run(images, budgets)
            else:  # torch's own threads did not survive the fork; torch would wait for them for ever
                with torch_threads(1):
                    features, opened, faulty = self._run(images, budgets)
        warn_not_finite(faulty, len(images), stacklevel=3)
        return Executed(features, opened, self.plan.sites, self._cost(image_size_of(images)))

    def _warn_of_another_size(self, images: Tensor, stacklevel: int) -> None:
        """Say that a network in int8 was calibrated on images of another size; once for each size that it sees."""
        size, calibrated_at = image_size_of(images), self.plan.calibrated_at if isinstance(self.plan, Int8Plan) else None
        if calibrated_at is None or size == calibrated_at or size in self._costs:
            return
        seen, given = (" x ".join(str(side) for side in height_and_width(each)) for each in (calibrated_at, size))
        warnings.warn(
            f"this network was calibrated for int8 on images of {seen} pixels, and these have {given}: its features may be"
            f" less exact. Compile it with calibration images of {given} pixels",
            CalibrationWarning,
            stacklevel=stacklevel + 1,
        )

    def _budgets(self, budget: float | Sequence[float] | None, images: Tensor) -> float | tuple[float, ...] | None:
        """The budget of all images, or one for each."""
        if budget is None or not len(images):
            return self._compiled_budget
        if self._dial is None:
            raise ValueError(DENSE_HAS_NO_BUDGET)
        asked = Route.at(budget).budget
        check_budgets(asked, images)
        if asked != self._last_asked:
            self._last_asked = asked
            warn_beyond(self._gates, asked, stacklevel=4)
        return asked

    def _run(self, images: Tensor, budgets: float | tuple[float, ...] | None) -> tuple[Tensor, Tensor, list[int]]:
        """Features and open entries of images, each at its budget, and the numbers of the images that are not finite."""
        if isinstance(budgets, tuple):
            features, opened = self._run_each_at(images, budgets)
        else:
            features, opened = self._run_at(images, budgets)
        faulty = not_finite(images)
        if faulty:
            features[faulty] = torch.nan  # a NaN may lie where nothing is computed, so the features would not show it
        return features, opened, faulty

    def _run_each_at(self, images: Tensor, budgets: tuple[float, ...]) -> tuple[Tensor, Tensor]:
        """Features and open entries of images, each at its own budget: images of one budget are run together."""
        features = torch.empty(len(images), 0)
        opened = torch.empty(len(images), 0, dtype=torch.uint8)
        for number, budget in enumerate(sorted(set(budgets))):
            rows = torch.tensor([row for row, own in enumerate(budgets) if own == budget])
            some = self._run_at(images[rows], budget)
            if number == 0:
                features, opened = (each.new_empty(len(images), each.shape[1]) for each in some)
            features[rows], opened[rows] = some
        return features, opened

    def _run_at(self, images: Tensor, budget: float | None) -> tuple[Tensor, Tensor]:
        self._turn(budget)
        return self._runner(images)

    def _turn(self, budget: float | None) -> None:
        """Turn the dial to a budget, if it is elsewhere."""
        if self._dial is None or self._dial.budget == budget:
            return
        self._dial.budget = budget
        try:
            self._runner.budget_changed()
        except BaseException:
            self._dial.budget = math.nan  # equals no budget, so that the next call turns the dial again
            raise

    def prepare(self, budgets: Sequence[float]) -> None:
        """Lay out the thresholds of budgets now, so that no later call has to do it. Results do not change.

        Otherwise the first call at a budget does it, in about the time of a small network. The thresholds of the latest
        budgets are kept, up to 1 MiB for each gate. That is 512 budgets of a gate of 512 channels.

        Args:
            budgets: Shares of the dense cost, each in (0, 1].

        Raises:
            TypeError: If they are not numbers.
            ValueError: If a budget is not such, or the route is dense.
        """
        if self._dial is None:
            raise ValueError(DENSE_HAS_NO_BUDGET)
        asked = Route.at(budgets).budget
        with self._one_call_at_a_time:
            for budget in asked if isinstance(asked, tuple) else (asked,):
                self._turn(budget)

    def seconds_of_steps(self, image: Tensor) -> Tensor:
        """Seconds of each step of the plan for an image (3, H, W), float64; 0 for a step that is not run.

        Raises:
            RunError: If the backend cannot time single steps.
        """
        with self._one_call_at_a_time:
            return self._runner.seconds(image)

    def __repr__(self) -> str:
        """What runs where."""
        gates = f", {len(self.plan.sites)} gates" if self._dial is not None else ""
        if idle := len(self.sites_that_save_nothing):
            gates += f" ({idle} of them save nothing)"
        where = f"{self.precision}, backend {self.backend}, threads {self.threads}"
        return f"Executor({len(self.plan.steps)} steps{gates}, {where})"

    def with_threads(self, threads: int) -> Executor:
        """The same network with another number of threads; in int8 it is not calibrated again.

        Raises:
            ValueError: If ``threads`` is not a whole number from 1.
        """
        return _rebuilt(self._whole_plan(), self._cost_model, threads, self._asked_for)

    def __reduce__(self) -> tuple[Callable[..., Executor], tuple[object, ...]]:
        """The plan with its weights, from which the executor is built again: layouts depend on the machine."""
        return _rebuilt, (self._whole_plan(), self._cost_model, self.threads, self._asked_for)

    def _whole_plan(self) -> Plan:
        """The plan with its weights, at the budget that was compiled."""
        return self._runner.whole_plan().with_dial(Dial(self._compiled_budget))

    def _cost(self, size: ImageSize) -> CostModel:
        if size not in self._costs:
            self._costs[size] = self._cost_model(size)
        return self._costs[size]


def _rebuilt(plan: Plan, cost_model: Callable[[ImageSize], CostModel], threads: int, backend: str) -> Executor:
    return Executor(plan, cost_model, threads=threads, backend=backend)


def compiled(
    backbone: Backbone,
    route: Route,
    *,
    threads: int | None = None,
    backend: str = AUTO,
    precision: str = FLOAT32,
    calibration: Tensor | None = None,
) -> Executor:
    """One route of a backbone, compiled: norms are folded, and only what the masks keep is computed.

    In float32 the results are those of the backbone in evaluation mode, within float32 rounding. The backbone itself is not
    changed, and later changes of its weights do not change the executor.

    Args:
        backbone: Float32, on the CPU.
        route: The route.
        threads: How many threads work at once; by default as many as torch uses.
        backend: A name of :data:`ssl_dc.compiled.backends.BACKENDS`, or ``auto`` for the first that is available.
        precision: ``float32``, ``bf16`` or ``int8``.
        calibration: For int8: training images (n, 3, H, W) on which ranges are measured.

    A :class:`ssl_dc.errors.SlowerWarning` says so if this processor has no instructions for bf16.

    Raises:
        ValueError: If there is no such precision, or int8 has no calibration images, or they are not finite.
        RunError: If the backbone cannot be traced or computed in this precision, or the named backend is not available;
            with the reason.
    """
    _check(backbone)
    choose(backend, precision)  # the calibration takes seconds: refuse before
    plan = fuse(capture(backbone, route))
    if precision == INT8:
        plan = _in_int8(plan, calibration)
    elif precision == BF16:
        plan = in_bf16(plan)
    else:
        plan = _with_own_weights(plan, backbone)
    executor = Executor(plan, _without_memory(backbone).cost_model, threads=threads, backend=backend)
    if precision == BF16 and not multiplies_bf16():
        told = "this processor has no instructions for bf16, so precision='float32' is faster here"
        warnings.warn(told, SlowerWarning, stacklevel=4)
    return executor


def _in_int8(plan: Plan, calibration: Tensor | None) -> Plan:
    """The plan in int8, calibrated at the budget of the route and at all others that the gates have thresholds for."""
    if calibration is None:
        raise ValueError("int8 needs images to be calibrated on")
    check_images(calibration, device="cpu")
    if not len(calibration) or not bool(calibration.isfinite().all()):
        raise ValueError("int8 is calibrated on at least one image, and on finite ones")
    return quantise(plan, calibration, budgets_of(plan), usual_here())


def usual_here() -> Recipe:
    """How plans are quantised for the fastest int8 kernel of this machine.

    Raises:
        RunError: If there is no kernel; with the reason.
    """
    return replace(USUAL, largest_weight=largest_weight())


def _with_own_weights(plan: Plan, backbone: Backbone) -> Plan:
    """The plan with copies of the weights that it still shares with the backbone."""
    shared = {parameter.data_ptr() for parameter in backbone.parameters()}
    copies: dict[Step, tuple[Step]] = {
        step: (replace(step, weight=step.weight.clone()),)
        for step in plan.steps
        if isinstance(step, Conv) and step.weight.data_ptr() in shared
    }
    return plan.exchanged(copies)


def _without_memory(backbone: Backbone) -> Backbone:
    """A copy that has shapes but no values, enough to count MACs."""
    tensors = (*backbone.parameters(), *backbone.buffers())
    empty = {id(tensor): torch.empty_like(tensor, device="meta") for tensor in tensors}
    parameters = {
        id(parameter): nn.Parameter(empty[id(parameter)], requires_grad=False) for parameter in backbone.parameters()
    }
    return copy.deepcopy(backbone, empty | parameters).to("meta")


def _check(backbone: Backbone) -> None:
    """Refuse a backbone that cannot be compiled."""
    for name, tensor in (*backbone.named_parameters(), *backbone.named_buffers()):
        wrong = tensor.is_floating_point() and tensor.dtype is not torch.float32
        if tensor.device.type != "cpu" or wrong:
            raise RunError(f"what is compiled must be float32 on the CPU; {name} is {tensor.dtype} on {tensor.device}")
