"""Holding the gated route to its budget, by what it pays in evaluation mode.

The paper's penalty alone misses the budget. It is small beside the objective, and it sees the noisy gates of training.
Those open differently from the thresholded gates of evaluation (method section 4).
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
    """What training does to meet the budget, in addition to the gating scheme's own loss.

    Attributes:
        target: The budget that the scheme's loss is given.
    """

    target: float

    @abstractmethod
    def after_step(self, encoder: Encoder, images: Tensor, step: int) -> None:
        """Called after each step with a gated view.

        Args:
            encoder: The encoder that is trained.
            images: The images of the first gated view, (N, 3, H, W).
            step: The number of the step, from 0.
        """

    @abstractmethod
    def metrics(self) -> dict[str, float]:
        """The metrics to log."""

    @abstractmethod
    def state(self) -> dict[str, float]:
        """What a resume point must save in addition to the network."""

    @abstractmethod
    def restore(self, state: Mapping[str, float]) -> None:
        """Continue from the state that a resume point saved."""


class PenaltyControl(BudgetControl):
    """The paper's control: the scheme's penalty alone.

    Args:
        target: The budget, or None for a network without gates.
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
    """Moves the threshold of all gates during training until the network costs its budget in evaluation mode.

    Every few steps the batch passes once more, in evaluation mode. If it pays more than the budget, the threshold rises in
    proportion; if it pays less, the threshold falls. All gates have one threshold. It fixes how much is open; the gates
    decide where, and for which image.

    Args:
        target: The budget.
        cost: The network's cost model.
    """

    EVERY = 5
    """Steps between two measurements of the cost. One measurement is a forward pass of one view: about 3 % of the time."""
    GAIN = 0.5
    """How far the threshold moves, in logits, when the cost exceeds the budget by the whole dense cost."""

    def __init__(self, target: float, cost: CostModel) -> None:
        self.target = target
        self._cost = cost
        self._threshold = 0.0
        self._evaluated: float | None = None

    def after_step(self, encoder: Encoder, images: Tensor, step: int) -> None:
        """Measure the evaluated cost every few steps, and move the threshold."""
        if self._evaluated is not None and step % self.EVERY:
            return
        self._evaluated = evaluated_ratio(encoder, images, self._cost)
        self._threshold += self.GAIN * (self._evaluated - self.target)
        set_threshold(encoder, self._threshold)

    def metrics(self) -> dict[str, float]:
        """The last evaluated cost and the threshold. There are none before the first measurement."""
        if self._evaluated is None:
            return {}
        return {"evaluated_cost_ratio": self._evaluated, "gate_threshold": self._threshold}

    def state(self) -> dict[str, float]:
        """The last evaluated cost and the threshold."""
        return self.metrics()

    def restore(self, state: Mapping[str, float]) -> None:
        """Continue from both. The gates' own buffers are saved with the network."""
        if state:
            self._evaluated, self._threshold = state["evaluated_cost_ratio"], state["gate_threshold"]


def budget_control(budget: BudgetConfig, cost: CostModel) -> BudgetControl:
    """The budget control of a config."""
    if budget.target is None or budget.control == "penalty":
        return PenaltyControl(budget.target)
    return AdaptiveControl(budget.target, cost)


def calibrate(encoder: Encoder, batches: Sequence[Tensor], cost: CostModel, target: float) -> float:
    """Set the threshold of all gates so that images cost the target on average in evaluation mode.

    The cost falls as the threshold rises, so bisection finds the threshold.

    Args:
        encoder: The thresholds of its gates are set.
        batches: Images, (N, 3, H, W) each, not augmented. They must not be those that results are reported on.
        cost: The network's cost model.
        target: The budget.

    Returns:
        The cost that the threshold gives, as a share of the dense cost.
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
"""Calibration tries thresholds from minus this to plus this: sigmoid(16) is 1 to within 1e-6."""
_HALVINGS = 22
"""Steps of the bisection. They leave an interval of 32 / 2**22, which is 8e-6 logits."""


def evaluated_ratio(encoder: Encoder, images: Tensor, cost: CostModel) -> float:
    """Mean share of the dense cost that images (N, 3, H, W) pay on the gated route in evaluation mode."""
    with torch.no_grad(), evaluation_mode(encoder):
        ratio = cost.ratio(encoder(images, Route.GATED).masks).mean()
    return float(mean_over_processes(ratio))
