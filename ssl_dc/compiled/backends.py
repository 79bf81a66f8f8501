"""The backends that can run a plan. A new one is a class in a file of its own and a row of the table here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from torch import Tensor

from ssl_dc.compiled.native_backend import NativeBackend
from ssl_dc.compiled.plan import Plan
from ssl_dc.compiled.precisions import FLOAT32, PRECISIONS
from ssl_dc.compiled.torch_backend import TorchBackend
from ssl_dc.errors import RunError

AUTO = "auto"
"""Asks for the first backend of the table that is available."""


class Runner(Protocol):
    """A plan, ready to run. One call at a time uses it; the executor sees to that.

    Attributes:
        plan: The steps. A runner that keeps the weights in a layout of its own may leave only their shapes here.
    """

    plan: Plan

    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Run a batch.

        Args:
            images: (N, 3, H, W) float32 on the backend's device; N may be 0.

        Returns:
            Features (N, feature_dim) float32, and whether each entry of each mask is open: (N, entries) uint8 in {0, 1},
            the sites in the order of ``plan.sites``. Both on the CPU.
        """

    def budget_changed(self) -> None:
        """The dial of the plan was turned: the gates decide at another budget from the next call on."""

    def seconds(self, image: Tensor) -> Tensor:
        """Seconds of each step of the plan for an image (3, H, W), float64; 0 for a step that is not run.

        Raises:
            RunError: If the runner cannot time single steps.
        """

    def whole_plan(self) -> Plan:
        """The plan with its weights, from which another backend could run it."""


class Backend(Protocol):
    """A way to run plans.

    Attributes:
        name: As :meth:`ssl_dc.Model.compile_gated` takes it.
        device: The torch device type that images must be on.
        precisions: The precisions that it computes in, from ``ssl_dc.compiled.precisions``.
    """

    name: str
    device: str
    precisions: tuple[str, ...]

    def unavailable(self) -> str:
        """Why it cannot run on this machine; empty if it can."""

    def build(self, plan: Plan, threads: int) -> Runner:
        """A runner of a fused plan.

        Args:
            plan: On the CPU, in one of the backend's precisions: float32, a
                :class:`ssl_dc.compiled.bf16_plan.Bf16Plan` or an :class:`ssl_dc.compiled.int8_plan.Int8Plan`.
            threads: How many CPU threads work at once, at least 1.

        Raises:
            RunError: If the backend is not available, or cannot run this plan; with the reason.
        """


BACKENDS: Mapping[str, Backend] = {backend.name: backend for backend in (NativeBackend(), TorchBackend())}
"""Every backend by name, the fastest first."""


def choose(name: str, precision: str = FLOAT32) -> tuple[Backend, dict[str, str]]:
    """The backend of this name, or for ``auto`` the first that is available and computes in this precision.

    Returns:
        The backend, and why each faster one is not used.

    Raises:
        ValueError: If there is no backend of this name, or no such precision.
        RunError: If the named backend is not available, or has not this precision; with the reason.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"there is no precision {precision!r}; choose one of {', '.join(PRECISIONS)}")
    if name not in (AUTO, *BACKENDS):
        raise ValueError(f"there is no backend {name!r}; choose one of {', '.join((AUTO, *BACKENDS))}")
    passed_over: dict[str, str] = {}
    for backend in BACKENDS.values():
        if name not in (AUTO, backend.name):
            passed_over[backend.name] = f"{name} was asked for"
            continue
        has_it = precision in backend.precisions
        reason = backend.unavailable() if has_it else _lacks(backend, precision)
        if not reason:
            return backend, passed_over
        if name != AUTO:
            raise RunError(reason)
        passed_over[backend.name] = reason
    raise RunError(f"no backend is available: {'; '.join(passed_over.values())}")


def _lacks(backend: Backend, precision: str) -> str:
    return f"the backend {backend.name} does not compute in {precision}, only in {', '.join(backend.precisions)}"
