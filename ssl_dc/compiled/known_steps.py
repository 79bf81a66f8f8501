"""Which steps the kernels for int8 and bf16 can compute."""

from __future__ import annotations

from collections.abc import Callable

from ssl_dc.compiled.plan import Plan
from ssl_dc.compiled.steps.base import Step
from ssl_dc.compiled.steps.elementwise import Relu
from ssl_dc.compiled.steps.gates import Decide
from ssl_dc.compiled.steps.layers import Conv
from ssl_dc.compiled.steps.pooling import MaxPool, Mean
from ssl_dc.errors import RunError


def refuse_unknown_steps(plan: Plan, precision: str, multiplies: Callable[[Conv], bool], faults: str) -> None:
    """Refuse a plan with a step that a kernel for some precision cannot compute.

    Args:
        plan: A fused plan in float32.
        precision: The precision, as the message names it.
        multiplies: Whether the kernel can compute a convolution.
        faults: What is wrong with one that it cannot compute: ``groups, or ...``.

    Raises:
        RunError: If there is such a step, with its name.
    """
    for step in plan.steps:
        known = isinstance(step, (MaxPool, Relu)) or (
            isinstance(step, Mean) and step.output == plan.output and not step.keepdim
        )
        if isinstance(step, Decide):
            known = step.rule is not None
            what = f"the gate at {step.output}, which has no pooled rule"
        elif isinstance(step, Conv):
            known = multiplies(step)
            what = f"the layer {step.layer}, which has {faults}"
        else:
            known_ones = "convolutions, max-pools, ReLUs, gates and one mean at the end"
            what = f"the step {step.output!r} ({type(step).__name__}); it knows the steps of ResNets, {known_ones}"
        if not known or (_reads_picked_channels(step, plan) and not isinstance(step, Conv)):
            raise RunError(f"{precision} cannot compute {what}; use precision='float32'")


def _reads_picked_channels(step: Step, plan: Plan) -> bool:
    return any(isinstance(maker, Conv) and maker.out_site for value in step.inputs for maker in plan.makers(value))
