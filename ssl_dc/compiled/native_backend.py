"""The backend that runs a plan with the compiled kernel."""

from __future__ import annotations

from torch import Tensor

from ssl_dc.compiled.kernel import kernel
from ssl_dc.compiled.kernel_interface import Kernel
from ssl_dc.compiled.layout import Weights, without_weights
from ssl_dc.compiled.native import NativeProgram
from ssl_dc.compiled.plan import Plan
from ssl_dc.errors import RunError


class NativeBackend:
    """kernel.c, compiled for this processor by the machine's own C compiler."""

    name = "native"
    device = "cpu"

    def unavailable(self) -> str:
        """Why there is no compiled kernel; empty if there is one."""
        try:
            kernel()
        except RunError as error:
            return str(error)
        return ""

    def build(self, plan: Plan, threads: int) -> NativeRunner:
        """A runner of this plan.

        Raises:
            RunError: If there is no compiled kernel; with the reason.
        """
        return NativeRunner(plan, kernel(), threads)


class NativeRunner:
    """A plan run by the compiled kernel.

    Args:
        plan: The plan.
        kernel: The compiled kernel.
        threads: How many threads work at once.

    Attributes:
        plan: The plan, with the shapes of its weights only.
    """

    def __init__(self, plan: Plan, kernel: Kernel, threads: int) -> None:
        self.plan = without_weights(plan)
        self._weights = Weights(plan, kernel)
        self._kernel, self._threads = kernel, threads
        self._programs: dict[tuple[int, int], NativeProgram] = {}

    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Features (N, feature_dim) and open entries (N, entries of all masks) of images (N, 3, H, W)."""
        return self._program((images.shape[2], images.shape[3]))(images)

    def budget_changed(self) -> None:
        """Give the kernel the thresholds of the new budget."""
        self._weights.decide_anew(self.plan)

    def seconds(self, image: Tensor) -> Tensor:
        """Seconds of each step of the plan for an image (3, H, W), float64; 0 for a step that is not run."""
        return self._program((image.shape[1], image.shape[2])).seconds(image)

    def whole_plan(self) -> Plan:
        """The plan with its weights."""
        return self._weights.plan_with(self.plan)

    def _program(self, size: tuple[int, int]) -> NativeProgram:
        """The program for images of one size. Only one is kept, since each has activations of its own."""
        if size not in self._programs:
            self._programs = {size: NativeProgram(self.plan, size, self._kernel, self._weights, self._threads)}
        return self._programs[size]
