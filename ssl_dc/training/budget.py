"""Holding the gated route to its budget, by what it pays in evaluation mode.

The paper's penalty alone does not: it is small beside the objective, and it sees the noisy gates of training, which open
otherwise than the thresholded gates that are paid for (method section 4).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ssl_dc.config.schema import BudgetConfig
from ssl_dc.distributed import mean_over_processes
from ssl_dc.encoders.base import Encoder
from ssl_dc.evaluation_mode import evaluation_mode
from ssl_dc.gating.base import set_threshold
from ssl_dc.gating.cost import CostModel
from ssl_dc.routes import Route


class BudgetControl(ABC):
    """What is done during training, beside the gating scheme's own loss, to meet the budget.

    Attributes:
        target: The budget that the scheme's loss is told.
    """

    target: float

    @abstractmethod
    def after_step(self, encoder: Encoder, images: Tensor, step: int) -> None:
        """Called after each step in which a view was gated, with that view's images (N, 3, H, W)."""

    @abstractmethod
    def metrics(self) -> dict[str, float]:
        """What is worth logging."""

    @abstractmethod
    def state(self) -> dict[str, float]:
        """What a resume point must hold, besides the network."""

    @abstractmethod
    def restore(self, state: Mapping[str, float]) -> None:
        """Go on from a resume point."""


class PenaltyControl(BudgetControl):
    """The paper's: the scheme's penalty and nothing else.

    Args:
        target: The budget; None for a network without gates.
    """

    def __init__(self, target: float | None) -> None:
        self.target = 1.0 if target is None else target

    def after_step(self, encoder: Encoder, images: Tensor, step: int) -> None:
        """Nothing."""

    def metrics(self) -> dict[str, float]:
        """Nothing."""
        return {}

    def state(self) -> dict[str, float]:
        """Nothing."""
        return {}

    def restore(self, state: Mapping[str, float]) -> None:
        """Nothing."""


class AdaptiveControl(BudgetControl):
    """Moves the threshold of all gates, while the network learns, until evaluation costs what was asked for.

    Every few steps the batch passes once more in evaluation mode; where it pays more than the budget the threshold rises
    in proportion, where less it falls. One threshold serves all gates: how much is open is held, where and for which
    image is left to the gates.

    Args:
        target: The budget.
        cost: The network's cost model.
    """

    EVERY = 5
    """Steps between two looks at the cost: a look is a forward of one view, so about a thirtieth of the time."""
    GAIN = 0.5
    """How far, in logits, the threshold moves for an excess of the whole dense cost."""

    def __init__(self, target: float, cost: CostModel) -> None:
        self.target = target
        self._cost = cost
        self._threshold = 0.0
        self._evaluated: float | None = None

    def after_step(self, encoder: Encoder, images: Tensor, step: int) -> None:
        """Look at the evaluated cost, if it is time, and move the threshold."""
        if self._evaluated is not None and step % self.EVERY:
            return
        self._evaluated = evaluated_ratio(encoder, images, self._cost)
        self._threshold += self.GAIN * (self._evaluated - self.target)
        set_threshold(encoder, self._threshold)

    def metrics(self) -> dict[str, float]:
        """The last evaluated cost, and the threshold; nothing before the first look."""
        if self._evaluated is None:
            return {}
        return {"evaluated_cost_ratio": self._evaluated, "gate_threshold": self._threshold}

    def state(self) -> dict[str, float]:
        """Both."""
        return self.metrics()

    def restore(self, state: Mapping[str, float]) -> None:
        """Take both up again; the gates' own buffers are in the network."""
        if state:
            self._evaluated, self._threshold = state["evaluated_cost_ratio"], state["gate_threshold"]


def budget_control(budget: BudgetConfig, cost: CostModel) -> BudgetControl:
    """The control that a config asks for."""
    if budget.target is None or budget.control == "penalty":
        return PenaltyControl(budget.target)
    return AdaptiveControl(budget.target, cost)


def calibrate(encoder: Encoder, batches: Sequence[Tensor], cost: CostModel, target: float) -> float:
    """Set the threshold of all gates so that images cost the target, on average, in evaluation mode.

    Cost falls as the threshold rises, so halving an interval finds it.

    Args:
        encoder: Its gates' thresholds are set.
        batches: Images, (N, 3, H, W) each, not augmented; not those that results are reported on.
        cost: The network's cost model.
        target: The budget.

    Returns:
        The cost that was reached, as a share of the dense cost.
    """
    low, high = -_REACH, _REACH
    for _ in range(_HALVINGS):
        threshold = (low + high) / 2
        set_threshold(encoder, threshold)
        paid = sum(evaluated_ratio(encoder, images, cost) * len(images) for images in batches)
        ratio = paid / sum(len(images) for images in batches)
        low, high = (threshold, high) if ratio > target else (low, threshold)
    return ratio


_REACH = 16.0
"""Largest threshold, up or down, that calibration looks at: sigmoid(16) is 1 to within 1e-7."""
_HALVINGS = 22


def evaluated_ratio(encoder: Encoder, images: Tensor, cost: CostModel) -> float:
    """Mean share of the dense cost that images (N, 3, H, W) pay on the gated route in evaluation mode."""
    with torch.no_grad(), evaluation_mode(encoder):
        ratio = cost.ratio(encoder(images, Route.GATED).masks).mean()
    return float(mean_over_processes(ratio))
