"""Turns a plan into one in int8, with the ranges of its values measured on images.

Weights are symmetric, with a step for each output. Activations have a step for each channel. These are the usual choices
(Jacob et al. 2018, Krishnamoorthi 2018). Steps that follow the range of each channel, and biases that are corrected for
mean errors, are from Nagel et al. 2019. Error-compensated rounding is from Frantar et al. 2023.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from ssl_dc.compiled.activations import RELU
from ssl_dc.compiled.int8_plan import LARGEST_CODE, LARGEST_WEIGHT, Code, Int8Conv, Int8Plan
from ssl_dc.compiled.known_steps import refuse_unknown_steps
from ssl_dc.compiled.observe import COLUMNS, Moments, Seen, multiplied, observed
from ssl_dc.compiled.plan import Plan
from ssl_dc.compiled.precisions import INT8
from ssl_dc.compiled.rounding import compensated
from ssl_dc.compiled.steps.base import Step
from ssl_dc.compiled.steps.elementwise import Relu
from ssl_dc.compiled.steps.gates import Decide
from ssl_dc.compiled.steps.layers import Conv
from ssl_dc.compiled.steps.pooling import MaxPool
from ssl_dc.errors import RunError
from ssl_dc.gating.cost import image_size_of

TAIL = 1e-4
"""Share of the elements at each end of a value's range that are clipped, where there is no fine byte."""
HEADROOM = 1.15
"""How far a value with a fine byte reaches beyond all that was seen: what is clipped there is lost to all that follows."""
SMALLEST_SHARE = 0.25
"""The step of a channel is at least this share of the largest step of its value, however small its numbers were."""


@dataclass(frozen=True)
class Recipe:
    """What is done to keep errors small. Each part can be left out, to measure what it is worth.

    Attributes:
        by_channel: Each channel of an activation has a step that follows its range. Otherwise one step serves all of them.
        fine: Values that are added or averaged keep a second byte, with what rounding lost.
        compensated: The error of a rounded weight makes up for those of others. Otherwise each is rounded to the nearest.
        largest_weight: The largest magnitude of a weight, at most 127.
    """

    by_channel: bool = True
    fine: bool = True
    compensated: bool = True
    largest_weight: int = LARGEST_WEIGHT


USUAL = Recipe()
"""Everything."""


@torch.no_grad()
def quantise(plan: Plan, images: Tensor, budgets: Sequence[float | None] = (None,), recipe: Recipe = USUAL) -> Int8Plan:
    """The plan in int8.

    The plan runs on the images twice, in float32. First the ranges of its values are measured, then what its weights are
    multiplied with.

    Args:
        plan: A fused plan in float32.
        images: Training images (n, 3, H, W) float32, as the network takes them, at least one.
        budgets: The budgets at which the gates decide meanwhile; each is tried on its share of the images. The plan's dial
            is turned, and turned back.
        recipe: What is done to keep errors small.

    Raises:
        RunError: If a step cannot be computed in int8, or a weight is not finite.
    """
    faults = "a weight that is not finite, too many inputs, groups, or another activation than ReLU"
    refuse_unknown_steps(plan, INT8, _multiplies, faults)
    seen = observed(plan, images, budgets)
    codes = _codes(plan, seen, recipe)
    moments = multiplied(plan, images, budgets, codes)
    rounded = {
        step: _rounded(step, codes[step.input], moments[step], recipe) for step in plan.steps if isinstance(step, Conv)
    }
    exchanged: dict[Step, tuple[Step]] = {
        step: (_convolution(step, weights, codes, seen),) for step, weights in rounded.items()
    }
    quantised = plan.exchanged(exchanged)
    return Int8Plan(quantised.steps, quantised.output, quantised.input, codes, image_size_of(images))


def budgets_of(plan: Plan) -> list[float | None]:
    """The budget of the plan, and all others that its gates have thresholds for."""
    stored = {budget for step in plan.steps if isinstance(step, Decide) for budget in step.gate.budgets.tolist()}
    return [None if plan.dial is None else plan.dial.budget, *(sorted(stored) if len(stored) > 1 else ())]


def _multiplies(step: Conv) -> bool:
    """Whether the int8 kernel can compute a convolution."""
    sums = step.weight[0].numel() * LARGEST_CODE * LARGEST_WEIGHT
    plain = step.groups == step.in_span == step.out_span == 1 and step.activation in (None, RELU)
    return plain and sums < 2**31 and bool(step.weight.isfinite().all() and step.bias.isfinite().all())


def _codes(plan: Plan, seen: Mapping[str, Seen], recipe: Recipe) -> dict[str, Code]:
    """The code of each value. A max-pool does not change codes; a value that was never computed has any."""
    codes = {plan.input: _code(seen[plan.input], False, False)}
    for step in plan.steps:
        if isinstance(step, MaxPool):
            codes[step.output] = codes[step.input]
        elif isinstance(step, (Conv, Relu)) and step.output not in codes:
            fine = recipe.fine and _may_be_fine(plan, step.output)
            channels = len(step.weight) if isinstance(step, Conv) else len(codes[step.input].step)
            never = Code(torch.ones(channels, dtype=torch.float64), 0, fine)
            codes[step.output] = _code(seen[step.output], fine, recipe.by_channel) if step.output in seen else never
    return codes


def _may_be_fine(plan: Plan, value: str) -> bool:
    """Whether a value is more than the input of convolutions, and nothing that knows no fine bytes makes or reads it."""
    makers, readers = plan.makers(value), plan.readers(value)
    made = all(isinstance(maker, Relu) or (isinstance(maker, Conv) and maker.out_site is None) for maker in makers)
    read = any(not isinstance(reader, Conv) or reader.residual == value for reader in readers)
    return made and read and not any(isinstance(reader, MaxPool) for reader in readers)


def _code(seen: Seen, fine: bool, by_channel: bool) -> Code:
    """The code that spans the samples: but for their tails if only convolutions read them, else all of them."""
    extents = torch.maximum(seen.highs, -seen.lows)
    shares = torch.ones_like(extents)
    if not float(extents.max()):
        return Code(shares.double(), 0, fine)
    if by_channel:
        shares = (extents / extents.max()).clamp(min=SMALLEST_SHARE)
    low, high = (HEADROOM * float(end) for end in ((seen.lows / shares).min(), (seen.highs / shares).max()))
    if not fine:
        ordered = (torch.cat(seen.samples) / shares[torch.cat(seen.channels)]).sort().values
        tail = int(TAIL * len(ordered))
        clipped = min(0.0, float(ordered[tail])), max(0.0, float(ordered[-1 - tail]))
        low, high = clipped if clipped[0] < clipped[1] else (low, high)
    return _spanning(low, high, shares, fine)


def _spanning(low: float, high: float, shares: Tensor, fine: bool = False) -> Code:
    """The code whose bytes span a range that contains 0, or in each channel a share of that range, (channels,)."""
    step = (high - low) / LARGEST_CODE
    return Code(step * shares.double(), round(-low / step), fine)


@dataclass(frozen=True)
class _Rounded:
    """The weights of a convolution of bytes, less the byte of 0.

    Attributes:
        whole: (out, columns) float64: whole numbers.
        steps: (out,) float64: what one of them is worth.
        bias: (out,) float64.
    """

    whole: Tensor
    steps: Tensor
    bias: Tensor


def _rounded(step: Conv, given: Code, moments: Moments, recipe: Recipe) -> _Rounded:
    """The weights of a convolution, rounded."""
    if step.in_site is not None and given.zero:
        raise RunError(f"int8 cannot compute {step.layer}: the channels that it picks may be negative; use float32")
    of_bytes = (step.weight.double() * given.step[:, None, None]).flatten(1)
    steps = of_bytes.abs().amax(dim=1) / recipe.largest_weight
    steps[steps == 0] = 1.0
    numbers = of_bytes / steps[:, None]
    if recipe.compensated:
        blocks = zip(numbers.split(COLUMNS, dim=1), moments.blocks(), strict=True)
        whole = torch.cat([compensated(part, block, recipe.largest_weight) for part, block in blocks], dim=1)
    else:
        whole = numbers.round()
    error = (of_bytes - steps[:, None] * whole) @ moments.mean
    return _Rounded(whole, steps, step.bias.double() + error)


def _convolution(step: Conv, rounded: _Rounded, codes: Mapping[str, Code], seen: Mapping[str, Seen]) -> Int8Conv:
    """A convolution in int8."""
    given, made = codes[step.input], codes[step.output]
    scale = (rounded.steps / made.step).float()
    bias = rounded.bias / made.step + made.zero - given.zero * rounded.whole.sum(dim=1) * scale
    residual_scale = None
    if step.residual is not None:
        if step.residual in seen and step.output in seen and seen[step.residual].shape != seen[step.output].shape:
            raise RunError(f"int8 cannot compute {step.layer}: it adds a value of another shape; use float32")
        residual = codes[step.residual]
        residual_scale = (residual.unit / made.step).float()
        bias = bias - residual.origin * residual_scale
    kept = {attribute.name: getattr(step, attribute.name) for attribute in fields(step)}
    changed = {
        "weight": rounded.whole.view(step.weight.shape).to(torch.int8),
        "bias": bias.float(),
        "scale": scale,
        "residual_scale": residual_scale,
        "low": float(made.zero if step.activation == RELU else 0),
    }
    return Int8Conv(**(kept | changed))
