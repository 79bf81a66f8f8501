"""Counts the MACs and the parameters of a plan."""

from __future__ import annotations

from ssl_dc.compiled.arena import shapes_of
from ssl_dc.compiled.plan import Conv, Plan


def macs_of(plan: Plan, image_size: int) -> int:
    """MACs of the convolutions of a plan for one image (3, image_size, image_size), with all channels computed."""
    shapes = shapes_of(plan, (image_size, image_size))
    convolutions = (step for step in plan.steps if isinstance(step, Conv))
    return sum(step.weight.numel() * shapes[step.output][2] * shapes[step.output][3] for step in convolutions)


def parameters_of(plan: Plan) -> int:
    """Number of weights and biases of the convolutions of a plan."""
    return sum(step.weight.numel() + step.bias.numel() for step in plan.steps if isinstance(step, Conv))
