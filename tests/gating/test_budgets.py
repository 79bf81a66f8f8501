"""Thresholds of a set of budgets: read exactly, between two of them, and outside."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ssl_dc.gating.base import TIE_BREAK, Gate, set_budgets, set_threshold
from ssl_dc.gating.sites import GateSite, Granularity
from ssl_dc.testing.counterparts import LinearGate

CHANNELS = 5
grids = st.lists(st.integers(1, 100), min_size=1, max_size=9, unique=True).map(
    lambda whole: [w / 100 for w in sorted(whole)]
)
shares = st.floats(0.001, 1)


def gate(budgets: list[float]) -> Gate:
    """A gate with thresholds that do not rise or fall with the budget, in the way of the channels' own."""
    made = LinearGate(GateSite("site", Granularity.CHANNEL, 4, CHANNELS, ()))
    set_budgets(made, budgets)
    made.thresholds.normal_(0, 2, generator=torch.Generator().manual_seed(len(budgets)))
    return made


def interpolated(made: Gate, budget: float) -> np.ndarray:
    """The thresholds at a budget, by NumPy in float64."""
    grid, thresholds = made.budgets.double().numpy(), made.thresholds.double().numpy()
    return np.array([np.interp(budget, grid, column) for column in thresholds.T])


def test_a_new_gate_has_thresholds_of_0_for_one_budget() -> None:
    made = LinearGate(GateSite("site", Granularity.CHANNEL, 4, CHANNELS, ()))
    assert made.thresholds.shape == (1, CHANNELS)
    assert made.budgets.shape == (1,)
    assert not made.thresholds.any()
    for budget in (None, 0.1, 1.0):
        assert torch.equal(made.threshold_for(budget), torch.zeros(CHANNELS))


@given(grids, shares)
def test_thresholds_are_interpolated_linearly_and_clamped(budgets: list[float], budget: float) -> None:
    made = gate(budgets)
    seen = made.threshold_for(budget)
    assert seen.shape == (CHANNELS,)
    np.testing.assert_allclose(seen.double().numpy(), interpolated(made, budget), rtol=1e-4, atol=1e-4)


@given(grids)
def test_thresholds_at_a_stored_budget_are_those_stored(budgets: list[float]) -> None:
    made = gate(budgets)
    for row, budget in enumerate(budgets):
        assert torch.equal(made.threshold_for(budget), made.thresholds[row])
    assert torch.equal(made.threshold_for(None), made.thresholds[0])


@given(grids, st.lists(shares, min_size=1, max_size=6).map(tuple))
def test_each_image_has_the_thresholds_of_its_budget(budgets: list[float], asked: tuple[float, ...]) -> None:
    made = gate(budgets)
    rows = made.threshold_for(asked)
    assert rows.shape == (len(asked), CHANNELS)
    for row, budget in zip(rows, asked, strict=True):
        assert torch.equal(row, made.threshold_for(budget))


@pytest.mark.parametrize("move", [lambda made: made.double(), lambda made: made.half(), lambda made: made.bfloat16()])
def test_stored_budgets_stay_exact_in_another_precision(move: Callable[[Gate], Gate]) -> None:
    made = move(gate([0.1, 0.3, 0.7]))
    for row, budget in enumerate((0.1, 0.3, 0.7)):
        seen = made.threshold_for(budget)
        assert seen.dtype is made.thresholds.dtype
        torch.testing.assert_close(seen, made.thresholds[row])


def test_the_threshold_of_one_budget_is_set_alone() -> None:
    made = gate([0.1, 0.3, 0.7])
    before = made.thresholds.clone()
    set_threshold(made, 1.5, row=1)
    assert torch.equal(made.thresholds[[0, 2]], before[[0, 2]])
    assert (made.thresholds[1] - 1.5).abs().max() <= TIE_BREAK * (1 + 1e-4)
    assert len(set(made.thresholds[1].tolist())) == CHANNELS


def test_thresholds_are_saved_with_their_budgets() -> None:
    made, again = gate([0.1, 0.3, 0.7]), gate([0.2, 0.4, 0.6])
    again.load_state_dict(made.state_dict())
    assert torch.equal(again.threshold_for(0.2), made.threshold_for(0.2))
    assert {"budgets", "thresholds"} <= set(made.state_dict())


@given(grids, grids)
def test_new_budgets_have_the_thresholds_that_the_gate_had_there(before: list[float], after: list[float]) -> None:
    made = gate(before)
    expected = [made.threshold_for(budget) for budget in after]
    set_budgets(made, after)
    assert torch.equal(made.thresholds, torch.stack(expected))
    for row, budget in enumerate(after):
        assert torch.equal(made.threshold_for(budget), expected[row])


@pytest.mark.parametrize("budgets", [[], [0.5, 0.5], [0.5, 0.1], [0.0, 0.5], [0.5, 1.1], [float("nan")]])
def test_budgets_that_are_no_grid_are_refused(budgets: list[float]) -> None:
    with pytest.raises(ValueError, match="budgets must be ascending, above 0 and at most 1"):
        set_budgets(gate([0.5]), budgets)
