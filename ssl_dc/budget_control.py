"""Holding the gated route to its budget, by what it pays in evaluation mode.

The paper's penalty alone misses the budget. It is small beside the objective, and it sees the noisy gates of training.
Those open differently from the thresholded gates of evaluation (method section 4).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ssl_dc.calibration import evaluated_share
from ssl_dc.config.schema import BudgetConfig
from ssl_dc.devices import in_float64, without_wait
from ssl_dc.distributed import world_size
from ssl_dc.encoders.base import Encoder
from ssl_dc.gating.base import set_threshold
from ssl_dc.gating.cost import CostModel
from ssl_dc.routes import Route


class BudgetControl(ABC):
    """What training does to meet the budget, in addition to the gating scheme's own loss."""

    @abstractmethod
    def after_step(self, encoder: Encoder, images: Tensor, step: int, budget: float) -> None:
        """Called after each step with a gated view.

        Args:
            encoder: The encoder that is trained.
            images: The images of the first gated view, (N, 3, H, W).
            step: The number of the step, from 0.
            budget: The budget of the step's gated views.
        """

    @abstractmethod
    def readings(self) -> dict[str, Tensor | float]:
        """The metrics to log; tensors of one element where a device has them, which later steps do not change."""

    def metrics(self) -> dict[str, float]:
        """The same as numbers. The device is waited for."""
        return {name: float(value) for name, value in self.readings().items()}

    @abstractmethod
    def state(self) -> dict[str, float]:
        """What a resume point must save in addition to the network."""

    @abstractmethod
    def restore(self, state: Mapping[str, float]) -> None:
        """Continue from the state that a resume point saved."""


class PenaltyControl(BudgetControl):
    """The paper's control: the scheme's penalty alone."""

    def after_step(self, encoder: Encoder, images: Tensor, step: int, budget: float) -> None:
        """Nothing."""

    def readings(self) -> dict[str, Tensor | float]:
        """Nothing."""
        return {}

    def state(self) -> dict[str, float]:
        """Nothing."""
        return {}

    def restore(self, state: Mapping[str, float]) -> None:
        """Nothing."""


class AdaptiveControl(BudgetControl):
    """Moves the thresholds of all gates during training until the network costs its budgets in evaluation mode.

    Every few steps a part of the batch passes once more, in evaluation mode, at the budget of the step. If it pays more
    than that budget, the threshold rises in proportion; if it pays less, the threshold falls. The thresholds of other
    budgets follow it, the nearer the more. At a budget all gates have one threshold. It fixes how much is open; the gates
    decide where, and for which image.

    Args:
        budgets: The budgets that the network is trained for, ascending.
        cost: The network's cost model.
    """

    EVERY = 5
    """Steps between two measurements of the cost."""
    SHARE = 1 / 4
    """Share of the images of a global batch that are measured on. A measurement is a forward pass: on all images it would
    add a thirtieth to the time of a step."""
    LEAST, MOST = 64, 256
    """Fewest and most images that are measured on: fewer leave a larger error, and more hardly lessen it."""
    GAIN = 0.5
    """How far the threshold moves, in logits, when the cost exceeds the budget by the whole dense cost."""
    REACH = 0.15
    """Distance of two budgets at which the threshold of one follows that of the other by a factor of 1/e."""

    def __init__(self, budgets: Sequence[float], cost: CostModel) -> None:
        self._budgets = tuple(budgets)
        self._cost = cost
        self._thresholds = torch.zeros(len(self._budgets), dtype=torch.float64)
        self._evaluated: Tensor | None = None
        self._measured = self._budgets[0]

    def after_step(self, encoder: Encoder, images: Tensor, step: int, budget: float) -> None:
        """Measure the evaluated cost every few steps, and move the thresholds.

        On a GPU all of it is computed there, and nothing waits for it: a GPU that is waited for has no work afterwards.
        """
        if self._evaluated is not None and step % self.EVERY:
            return
        route = Route.at(budget) if len(self._budgets) > 1 else Route.GATED
        part = images[:: self.spacing(len(images) * world_size())]
        self._evaluated, self._measured = evaluated_share(encoder, part, self._cost, route), budget
        over = in_float64(self._evaluated) - budget
        shares = torch.tensor([math.exp(-abs(other - budget) / self.REACH) for other in self._budgets], dtype=over.dtype)
        moved = self._thresholds.to(over.device) + self.GAIN * over * without_wait(shares, over.device)
        self._thresholds = moved.cummin(0).values  # a larger budget opens no less
        for row, threshold in enumerate(self._thresholds.float()):
            set_threshold(encoder, threshold, row)

    @classmethod
    def spacing(cls, batch: int) -> int:
        """Every how many images of a global batch one is measured on.

        They are evenly spaced, so that the processes of a launch together measure on the images that one process would.
        """
        measured = min(max(cls.LEAST, round(cls.SHARE * batch)), cls.MOST)
        return -(-batch // measured)

    def readings(self) -> dict[str, Tensor | float]:
        """The last evaluated cost and its threshold, and which of several budgets these are of.

        There are none before the first measurement.
        """
        if self._evaluated is None:
            return {}
        threshold = self._thresholds[self._budgets.index(self._measured)]
        values: dict[str, Tensor | float] = {"evaluated_cost_ratio": self._evaluated, "gate_threshold": threshold}
        return values if len(self._budgets) == 1 else {**values, "evaluated_budget": self._measured}

    def state(self) -> dict[str, float]:
        """The last measurement and all thresholds."""
        rows = {f"threshold_{row}": threshold for row, threshold in enumerate(self._thresholds.tolist())}
        return {**self.metrics(), "evaluated_budget": self._measured, **rows} if self._evaluated is not None else {}

    def restore(self, state: Mapping[str, float]) -> None:
        """Continue from them. The gates' own buffers are saved with the network."""
        if state:
            self._evaluated, self._measured = torch.tensor(state["evaluated_cost_ratio"]), state["evaluated_budget"]
            rows = [state[f"threshold_{row}"] for row in range(len(self._budgets))]
            self._thresholds = torch.tensor(rows, dtype=torch.float64)


def budget_control(budget: BudgetConfig, cost: CostModel) -> BudgetControl:
    """The budget control of a config."""
    if not budget.budgets or budget.control == "penalty":
        return PenaltyControl()
    return AdaptiveControl(budget.budgets, cost)
