"""The backend that runs a plan with the compiled kernels."""

from __future__ import annotations

from torch import Tensor

from ssl_dc.compiled.bf16_layout import Bf16Weights
from ssl_dc.compiled.bf16_program import Bf16Program
from ssl_dc.compiled.int8_layout import Int8Weights
from ssl_dc.compiled.int8_plan import Int8Plan
from ssl_dc.compiled.int8_program import Int8Program
from ssl_dc.compiled.kernel import bf16_kernel, int8_kernel, kernel
from ssl_dc.compiled.kernel_interface import Kernel
from ssl_dc.compiled.layout import Weights, without_weights
from ssl_dc.compiled.native import NativeProgram
from ssl_dc.compiled.plan import Plan
from ssl_dc.compiled.precisions import BF16, FLOAT32, INT8
from ssl_dc.errors import RunError

_MADE_FOR: dict[str, tuple[type[Weights], type[NativeProgram]]] = {
    FLOAT32: (Weights, NativeProgram),
    BF16: (Bf16Weights, Bf16Program),
    INT8: (Int8Weights, Int8Program),
}
"""How weights are laid out, and programs made, in each precision."""


class NativeBackend:
    """kernel.c, kernel_bf16.c and kernel_int8.c, compiled for this processor by the machine's own C compiler."""

    name = "native"
    device = "cpu"
    precisions: tuple[str, ...] = (FLOAT32, BF16, INT8)

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
        if isinstance(plan, Int8Plan):
            return NativeRunner(plan, int8_kernel(plan.largest_weight), threads)
        return NativeRunner(plan, bf16_kernel() if plan.precision == BF16 else kernel(), threads)


class NativeRunner:
    """A plan run by a compiled kernel.

    Args:
        plan: The plan.
        kernel: The compiled kernel for the plan's precision.
        threads: How many threads work at once.

    Attributes:
        plan: The plan, with the shapes of its weights only.
    """

    def __init__(self, plan: Plan, kernel: Kernel, threads: int) -> None:
        self.plan = without_weights(plan)
        weights, self._make_program = _MADE_FOR[plan.precision]
        self._weights = weights(plan, kernel)
        self._kernel, self._threads = kernel, threads
        self._programs: dict[tuple[int, int], NativeProgram] = {}

    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Features (N, feature_dim) and open entries (N, entries of all masks) of images (N, 3, H, W)."""
        return self._program((images.shape[2], images.shape[3]))(images)

    def budget_changed(self) -> None:
        """Give the kernel the thresholds of the new budget."""
        self._weights.turn()

    def seconds(self, image: Tensor) -> Tensor:
        """Seconds of each step of the plan for an image (3, H, W), float64; 0 for a step that is not run."""
        return self._program((image.shape[1], image.shape[2])).seconds(image)

    def whole_plan(self) -> Plan:
        """The plan with its weights."""
        return self._weights.plan_with(self.plan)

    def _program(self, size: tuple[int, int]) -> NativeProgram:
        """The program for images of one size. Only one is kept, since each has activations of its own."""
        if size not in self._programs:
            self._programs = {size: self._make_program(self.plan, size, self._kernel, self._weights, self._threads)}
        return self._programs[size]
