"""A trained model at other budgets than the one that it was trained for."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from ssl_dc.calibration import CALIBRATION_IMAGES, calibrate
from ssl_dc.config.schema import budget_grid
from ssl_dc.data.base import Splits
from ssl_dc.data.prepared import Prepared
from ssl_dc.data.subsets import sample
from ssl_dc.errors import ConfigError, DialledWarning
from ssl_dc.evaluation.scores import own_splits
from ssl_dc.gating.base import set_budgets
from ssl_dc.model import Model

Budgets = float | str | Sequence[float]
"""One budget, a range such as ``0.1:0.9``, or several."""


def dialled(model: Model, budgets: Budgets) -> Model:
    """The model with a gated route at each of some budgets.

    Budgets among those of the training, and between two of them, need nothing. For any others thresholds are calibrated
    here, on the images that training calibrated on. The network did not learn with them, and a warning says so.

    Args:
        model: The model; it is not changed.
        budgets: Shares of the dense cost in (0, 1].

    Raises:
        ConfigError: If a budget is not such, the model has no gates, or the network costs more with every gate shut.
        DataError: If thresholds must be calibrated, and the data set of the model's config cannot be opened.
    """
    asked = checked_budgets(budgets)
    if not model.has_gates:
        raise ConfigError(f"--budget: this model has no gates, it was trained with gating {model.config.gating.name!r}")
    least = model.cost.floor_ratio
    if asked[0] < least:
        raise ConfigError(f"--budget {asked[0]:g}: with every gate shut this network costs {least:.5f} of the dense cost")
    if not all(_learned(model, budget) for budget in asked):
        model = _calibrated_for(model, asked)
    return model.at_budget(*asked)


def dialled_once(model: Model, budgets: Budgets) -> Model:
    """The model at one budget, as :func:`dialled` gives it, for what has only one gated network.

    Raises:
        ConfigError: If there are several budgets, or as in :func:`dialled`.
        DataError: As in :func:`dialled`.
    """
    asked = checked_budgets(budgets)
    if len(asked) > 1:
        raise ConfigError(f"--budget: one budget is taken here, not {len(asked)}; call once for each")
    return dialled(model, asked)


def checked_budgets(budgets: Budgets) -> tuple[float, ...]:
    """The budgets, ascending.

    Raises:
        ConfigError: If they are not shares of the dense cost in (0, 1].
    """
    if isinstance(budgets, (int, float)) and 0 < budgets <= 1:
        return (float(budgets),)
    if isinstance(budgets, Sequence) and not isinstance(budgets, str) and len(budgets) == 1:
        return checked_budgets(budgets[0])
    try:
        return budget_grid([budgets] if isinstance(budgets, (int, float)) else budgets)
    except ValueError as error:
        raise ConfigError(f"--budget: {str(error).removeprefix('target: ')}") from None


def calibration_batches(model: Model, splits: Splits) -> list[Tensor]:
    """Some of the images that are held out for calibration, or else of the training images, as evaluation sees them."""
    images = splits.train if splits.calibration is None else splits.calibration
    loader = DataLoader(Prepared(sample(images, CALIBRATION_IMAGES), model.transform), batch_size=256)
    return [batch.to(model.device, memory_format=torch.channels_last) for batch in loader]


def _learned(model: Model, budget: float) -> bool:
    """Whether training gave the gates a threshold for this budget, or for one below and one above it."""
    trained = model.config.budget.budgets
    if model.config.budget.control != "adaptive" or not trained:
        return False
    return trained[0] <= budget <= trained[-1]


def _calibrated_for(model: Model, asked: Sequence[float]) -> Model:
    """A copy of the model with thresholds for these budgets, and for those of its training."""
    batches = calibration_batches(model, own_splits(model))
    trained = model.config.budget.budgets
    grid = sorted({*trained, *asked})
    other = copy.deepcopy(model)
    set_budgets(other.encoder, grid, model.config.budget.target or grid[0])
    calibrate(other.encoder, batches, other.cost, grid)
    new = ", ".join(f"{budget:g}" for budget in asked if not _learned(model, budget))
    trained_for = ", ".join(f"{budget:g}" for budget in trained)
    warnings.warn(
        f"the network was trained for a budget of {trained_for}; its thresholds for {new} are set here, on"
        f" {sum(map(len, batches)):,} images, and it has not learned with them",
        DialledWarning,
        stacklevel=3,
    )
    return other
