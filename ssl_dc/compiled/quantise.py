"""Turns a plan into one in int8, with the ranges of its values measured on images.

Weights are symmetric, with a step for each output. Activations have one step for each value. These are the usual choices
(Jacob et al. 2018, Krishnamoorthi 2018). The bias is corrected for the mean error of the weights (Nagel et al. 2019).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields

import torch
from torch import Tensor

from ssl_dc.compiled.eager import EagerRun
from ssl_dc.compiled.int8_plan import LARGEST_CODE, LARGEST_WEIGHT, Code, Int8Conv, Int8Plan
from ssl_dc.compiled.plan import Conv, Decide, MaxPool, Mean, Plan, Relu, Step
from ssl_dc.errors import RunError

IMAGES_AT_ONCE = 32
SAMPLES = 1024
"""Elements of a value that are looked at for each image."""
TAIL = 1e-4
"""Share of the elements at each end of a value's range that are clipped."""


def quantise(plan: Plan, images: Tensor, budgets: Sequence[float | None] = (None,)) -> Int8Plan:
    """The plan in int8.

    The plan runs in float32 on the images. The bytes of a value span what it was there, from the 0.01th to the 99.99th
    percentile.

    Args:
        plan: A fused plan in float32.
        images: Training images (n, 3, H, W) float32, as the network takes them, at least one.
        budgets: The budgets at which the gates decide meanwhile; each is tried on its share of the images. The plan's dial
            is turned, and turned back.

    Raises:
        RunError: If a step cannot be computed in int8, or a weight is not finite.
    """
    for step in plan.steps:
        _check(step, plan)
    seen = _observed(plan, images, budgets)
    codes = _codes(plan, seen)
    convolutions: dict[Step, tuple[Step]] = {
        step: (_convolution(step, codes, seen),) for step in plan.steps if isinstance(step, Conv)
    }
    quantised = plan.exchanged(convolutions)
    return Int8Plan(quantised.steps, quantised.output, quantised.input, codes)


def _check(step: Step, plan: Plan) -> None:
    """Refuse a step that the int8 kernel cannot compute."""
    known = isinstance(step, (Conv, MaxPool, Relu)) or (isinstance(step, Mean) and step.output == plan.output)
    if isinstance(step, Decide):
        known = step.gate.pooled_rule(step.threshold) is not None
        what = f"the gate at {step.output}, which has no pooled rule"
    elif isinstance(step, Conv):
        what = f"the layer {step.layer}, which has a weight that is not finite, too many inputs, or groups"
        sums = step.weight[0].numel() * LARGEST_CODE * LARGEST_WEIGHT
        known = step.groups == 1 and sums < 2**31 and bool(step.weight.isfinite().all() and step.bias.isfinite().all())
    else:
        what = f"the step {step.output!r} ({type(step).__name__})"
    picked = any(isinstance(maker, Conv) and maker.out_site for value in step.inputs for maker in plan.makers(value))
    if not known or (picked and not isinstance(step, Conv)):
        raise RunError(f"int8 cannot compute {what}; use precision='float32'")


@dataclass
class _Seen:
    """What was seen of a value.

    Attributes:
        low: The smallest element, at most 0.
        high: The largest element, at least 0.
        samples: Elements of each image.
        sums: The sum over images of the mean of each channel; 0 counts for a shut channel.
        images: How many images there were.
        shape: (channels, H, W) with all channels kept.
    """

    shape: tuple[int, ...]
    low: float = 0.0
    high: float = 0.0
    samples: list[Tensor] = field(default_factory=list)
    sums: Tensor = field(default_factory=lambda: torch.zeros(0))
    images: int = 0

    def add(self, value: Tensor, channels: Tensor) -> None:
        """Look at a value (1, kept channels, H, W), given the indices of its channels."""
        if not len(self.sums):
            self.sums = torch.zeros(self.shape[0], dtype=torch.float64)
        self.images += 1
        if not value.numel():
            return
        self.low, self.high = min(self.low, float(value.min())), max(self.high, float(value.max()))
        elements = value.flatten()
        self.samples.append(elements[:: max(1, len(elements) // SAMPLES)].clone())
        self.sums[channels] += value.double().mean(dim=(0, 2, 3))

    @property
    def means(self) -> Tensor:
        """The mean of each channel, (channels,) float64."""
        return self.sums / max(1, self.images)


def _observed(plan: Plan, images: Tensor, budgets: Sequence[float | None]) -> dict[str, _Seen]:
    """What the values are like on the images."""
    seen = {plan.input: _Seen(tuple(images.shape[1:]))}

    def watch(step: Step, value: Tensor, kept: Mapping[str, Tensor]) -> None:
        if isinstance(step, Mean):
            return
        site = step.out_site if isinstance(step, Conv) else None
        all_channels = step.weight.shape[0] if isinstance(step, Conv) else value.shape[1]
        record = seen.setdefault(step.output, _Seen((all_channels, *value.shape[2:])))
        record.add(value, torch.arange(value.shape[1]) if site is None else kept[site])

    dial = plan.dial
    before = None if dial is None else dial.budget
    for number, budget in enumerate(budgets):
        if dial is not None:
            dial.budget = budget
        for chunk in images[number :: len(budgets)].split(IMAGES_AT_ONCE):
            for image in chunk.split(1):
                seen[plan.input].add(image, torch.arange(image.shape[1]))
            EagerRun(plan, watch)(chunk)
    if dial is not None:
        dial.budget = before
    return seen


def _codes(plan: Plan, seen: Mapping[str, _Seen]) -> dict[str, Code]:
    """The code of each value. A max-pool does not change codes; a value that was never computed has any."""
    codes = {plan.input: _code(seen[plan.input])}
    for step in plan.steps:
        if isinstance(step, MaxPool):
            codes[step.output] = codes[step.input]
        elif isinstance(step, (Conv, Relu)) and step.output not in codes:
            codes[step.output] = _code(seen[step.output]) if step.output in seen else Code(1.0, 0)
    return codes


def _code(seen: _Seen) -> Code:
    """The code that spans the samples but for their tails."""
    if seen.high == seen.low:
        return Code(1.0, 0)
    ordered = torch.cat(seen.samples).sort().values
    tail = int(TAIL * len(ordered))
    low, high = min(0.0, float(ordered[tail])), max(0.0, float(ordered[-1 - tail]))
    return _spanning(low, high) if low < high else _spanning(seen.low, seen.high)


def _spanning(low: float, high: float) -> Code:
    """The code whose bytes span a range that contains 0."""
    step = (high - low) / LARGEST_CODE
    return Code(step, round(-low / step))


def encoded(values: Tensor, code: Code) -> Tensor:
    """The bytes, as floats, that stand for numbers."""
    return (values / code.step + code.zero).round().clamp(0, LARGEST_CODE)


def decoded(codes: Tensor, code: Code) -> Tensor:
    """The numbers that bytes stand for."""
    return (codes - code.zero) * code.step


def _convolution(step: Conv, codes: Mapping[str, Code], seen: Mapping[str, _Seen]) -> Int8Conv:
    """A convolution in int8."""
    given, made = codes[step.input], codes[step.output]
    if step.in_site is not None and given.zero:
        raise RunError(f"int8 cannot compute {step.layer}: the channels that it picks may be negative; use float32")
    weight = step.weight.double()
    steps = weight.abs().amax(dim=(1, 2, 3)) / LARGEST_WEIGHT
    steps[steps == 0] = 1.0
    rounded = (weight / steps[:, None, None, None]).round()
    scale = steps * given.step / made.step
    error = (weight - rounded * steps[:, None, None, None]).sum(dim=(2, 3))
    correction = error @ (seen[step.input].means if step.input in seen else torch.zeros(weight.shape[1]).double())
    bias = (step.bias.double() + correction) / made.step + made.zero - given.zero * rounded.sum(dim=(1, 2, 3)) * scale
    residual_scale = 0.0
    if step.residual is not None:
        if step.residual in seen and step.output in seen and seen[step.residual].shape != seen[step.output].shape:
            raise RunError(f"int8 cannot compute {step.layer}: it adds a value of another shape; use float32")
        residual = codes[step.residual]
        residual_scale = residual.step / made.step
        bias = bias - residual.zero * residual_scale
    kept = {attribute.name: getattr(step, attribute.name) for attribute in fields(step)}
    changed = {
        "weight": rounded.to(torch.int8),
        "bias": bias.float(),
        "scale": scale.float(),
        "residual_scale": residual_scale,
        "low": float(made.zero if step.relu else 0),
    }
    return Int8Conv(**(kept | changed))
