"""Calibration: the thresholds at which images pay a budget in evaluation mode."""

from __future__ import annotations

from collections.abc import Sequence

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

    The cost falls as a threshold rises, so bisection finds the threshold.

    Args:
        encoder: The thresholds of its gates are set.
        batches: Images, (N, 3, H, W) each, not augmented. They must not be those that results are reported on.
        cost: The network's cost model.
        budgets: The budgets that the gates have thresholds for, ascending.

    Returns:
        The cost that each threshold gives, as a share of the dense cost.
    """
    paid: list[float] = []
    highest = _REACH
    for row, budget in enumerate(budgets):
        ratio, highest = _calibrate_row(encoder, batches, cost, budget, row, highest)
        paid.append(ratio)
    return paid


def _calibrate_row(
    encoder: Encoder, batches: Sequence[Tensor], cost: CostModel, budget: float, row: int, highest: float
) -> tuple[float, float]:
    """The cost that was reached for one budget, and the threshold, which is at most ``highest``."""
    route = Route.at(budget)
    low, high = -_REACH, highest
    for _ in range(_HALVINGS):
        threshold = (low + high) / 2
        set_threshold(encoder, threshold, row)
        paid = sum(evaluated_ratio(encoder, images, cost, route) * len(images) for images in batches)
        ratio = paid / sum(len(images) for images in batches)
        if abs(ratio - budget) < _NEAR:
            break
        low, high = (threshold, high) if ratio > budget else (low, threshold)
    return ratio, threshold


_NEAR = 1e-4
"""A cost this near to the budget is near enough."""
_REACH = 16.0
"""Calibration tries thresholds from minus this to plus this: sigmoid(16) is 1 to within 1e-6."""
_HALVINGS = 22
"""Steps of the bisection. They leave an interval of 32 / 2**22, which is 8e-6 logits."""


def evaluated_ratio(encoder: Encoder, images: Tensor, cost: CostModel, route: Route) -> float:
    """Mean share of the dense cost that images (N, 3, H, W) pay on a gated route in evaluation mode."""
    return float(evaluated_share(encoder, images, cost, route))


def evaluated_share(encoder: Encoder, images: Tensor, cost: CostModel, route: Route) -> Tensor:
    """The same as a scalar on the device of the masks, float32. A GPU that still computes it is not waited for."""
    with torch.no_grad(), evaluation_mode(encoder):
        return mean_over_processes(cost.ratio(encoder(images, route).masks).mean())
