"""Calibration: the thresholds at which images pay a budget in evaluation mode."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from ssl_dc.distributed import mean_over_processes
from ssl_dc.encoders.base import Encoder
from ssl_dc.evaluation_mode import evaluation_mode
from ssl_dc.gating.base import set_threshold
from ssl_dc.gating.cost import CostModel
from ssl_dc.routes import Route

CALIBRATION_IMAGES = 1024
"""Largest number of images that the gates are calibrated on."""


def calibrate(encoder: Encoder, batches: Sequence[Tensor], cost: CostModel, budgets: Sequence[float]) -> list[float]:
    """Set the thresholds of all gates so that images cost each budget on average in evaluation mode.

    The cost falls as a threshold rises. An eighth of the images finds about where the threshold is, by bisection. All find
    it from there.

    Args:
        encoder: The thresholds of its gates are set.
        batches: Images, (N, 3, H, W) each, not augmented. They must not be those that results are reported on.
        cost: The network's cost model.
        budgets: The budgets that the gates have thresholds for, ascending.

    Returns:
        The cost that each threshold gives, as a share of the dense cost.
    """
    some = [images[::_PART] for images in batches]

    def cost_of(images: Sequence[Tensor], row: int, threshold: float) -> float:
        set_threshold(encoder, threshold, row)
        route = Route.at(budgets[row])
        paid = sum(evaluated_ratio(encoder, batch, cost, route) * len(batch) for batch in images)
        return paid / sum(len(batch) for batch in images)

    paid: list[float] = []
    highest = _REACH
    for row, budget in enumerate(budgets):
        about = _bisected(partial(cost_of, some, row), budget, -_REACH, highest)
        highest, reached = _nearest(partial(cost_of, batches, row), budget, about, highest)
        set_threshold(encoder, highest, row)
        paid.append(reached)
    return paid


def _bisected(cost_at: Callable[[float], float], budget: float, low: float, high: float) -> float:
    """The threshold between two others at which the budget is paid."""
    for _ in range(_HALVINGS):
        threshold = (low + high) / 2
        paid = cost_at(threshold)
        if abs(paid - budget) < _NEAR:
            break
        low, high = (threshold, high) if paid > budget else (low, threshold)
    return threshold


def _nearest(cost_at: Callable[[float], float], budget: float, about: float, highest: float) -> tuple[float, float]:
    """The threshold up to ``highest`` that comes nearest to the budget, and its cost. It is sought from ``about`` on."""
    tried: dict[float, float] = {}
    threshold, step = about, _STEP
    while len(tried) < _MOST and threshold not in tried:
        tried[threshold] = cost_at(threshold)
        if abs(tried[threshold] - budget) < _NEAR:
            break
        above = [each for each, paid in tried.items() if paid > budget]
        below = [each for each, paid in tried.items() if paid <= budget]
        if above and below:
            low, high = max(above), min(below)
            share = (tried[low] - budget) / (tried[low] - tried[high])
            # A jump of the cost would keep a point between the two near the same end: every other one is in the middle.
            threshold = low + (high - low) * (share if len(tried) % 2 else 0.5)
            if high - low < _NARROW:
                break
        else:
            threshold = min(threshold + step, highest) if above else max(threshold - step, -_REACH)
            step *= 4
    return min(tried.items(), key=lambda each: abs(each[1] - budget))


_PART = 8
"""One in so many images finds about where a threshold is."""
_STEP = 0.02
"""How far from there it is looked for first, in logits."""
_NEAR = 1e-4
"""A cost this near to the budget is near enough."""
_REACH = 16.0
"""Calibration tries thresholds from minus this to plus this: sigmoid(16) is 1 to within 1e-6."""
_HALVINGS = 18
"""Steps of the bisection. They leave an interval of 32 / 2**18, which is 1.2e-4 logits."""
_NARROW = 1e-4
"""A threshold is known well enough to so many logits."""
_MOST = 32
"""The most thresholds that all images try."""


def evaluated_ratio(encoder: Encoder, images: Tensor, cost: CostModel, route: Route) -> float:
    """Mean share of the dense cost that images (N, 3, H, W) pay on a gated route in evaluation mode."""
    return float(evaluated_share(encoder, images, cost, route))


def evaluated_share(encoder: Encoder, images: Tensor, cost: CostModel, route: Route) -> Tensor:
    """The same as a scalar on the device of the masks, float32. A GPU that still computes it is not waited for."""
    with torch.no_grad(), evaluation_mode(encoder):
        return mean_over_processes(cost.ratio(encoder(images, route).masks).mean())
