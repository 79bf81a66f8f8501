"""One network for many budgets: drawn each step, a threshold for each, calibrated, and the same after a resume."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import ssl_dc
from helpers.settings import TINY, config_of
from helpers.training import assert_same_files, trainer_of
from ssl_dc.budget_control import AdaptiveControl
from ssl_dc.calibration import _nearest, calibrate
from ssl_dc.config.schema import BudgetConfig, budget_grid
from ssl_dc.errors import ConfigError
from ssl_dc.gating.base import gates_of

SEVERAL: dict[str, Any] = {**TINY, "budget.target": "0.2:0.8", "training.epochs": 4}


@pytest.mark.parametrize(
    ("said", "grid", "target"),
    [
        ("0.1:0.9", (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9), 0.3),
        ("0.25:0.5", (0.25, 0.375, 0.5), 0.25),
        ("0.5,0.1", (0.1, 0.5), 0.1),
        ([0.4, 0.2, 1.0], (0.2, 0.4, 1.0), 0.2),
        (0.3, None, 0.3),
    ],
)
def test_a_budget_is_a_number_a_range_or_a_list(said: Any, grid: tuple[float, ...] | None, target: float) -> None:
    budget = config_of({"budget.target": said}).budget
    assert budget.grid == grid
    assert budget.target == target
    assert BudgetConfig.model_validate(budget.model_dump(mode="json")) == budget


@pytest.mark.parametrize("said", ["0.1:x", "0.1:0.2:0.3", "nan:1", "0:0.5", "0.5:1.5", [0.1], [], "0.1,"])
def test_what_is_no_budget_is_refused(said: Any) -> None:
    with pytest.raises(ConfigError, match=r"is no budget; allowed: a number above 0, at most 1; a range such as"):
        config_of({"budget.target": said})


def test_a_grid_must_fit_its_target_and_its_control() -> None:
    with pytest.raises(ConfigError, match="none of the grid's budgets"):
        config_of({"budget.grid": [0.1, 0.5], "budget.target": 0.3})
    with pytest.raises(ConfigError, match="budgets must ascend"):
        config_of({"budget.grid": [0.5, 0.3], "budget.target": 0.3})
    with pytest.raises(ConfigError, match="several need 'adaptive'"):
        config_of({"budget.target": "0.1:0.5", "budget.control": "penalty"})


@given(low=st.floats(0.01, 0.98), share=st.floats(0.01, 1))
def test_a_range_is_a_grid_from_end_to_end(low: float, share: float) -> None:
    high = low + (1 - low) * share
    text = f"{low!r}:{high!r}"
    if round(low, 6) == round(high, 6):
        return
    grid = budget_grid(text)
    assert list(grid) == sorted(set(grid))
    assert grid[0] == pytest.approx(low, abs=1e-6)
    assert grid[-1] == pytest.approx(high, abs=1e-6)
    assert max(b - a for a, b in pairwise(grid)) <= 0.16


def test_each_step_draws_a_budget_by_the_seed_and_the_step_alone() -> None:
    one, other = trainer_of(SEVERAL), trainer_of({**SEVERAL, "seed": 1})
    drawn = []
    for step in range(200):
        one.step = other.step = step
        drawn.append((one._budget(), other._budget()))
    assert {first for first, _ in drawn} == set(one.budgets) == {0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8}
    assert sum(first == second for first, second in drawn) < 60
    one.step = 7
    assert one._budget() == drawn[7][0]


def test_only_gated_views_take_the_drawn_budget() -> None:
    trainer = trainer_of(SEVERAL)
    assert trainer._routes(0.4) == (ssl_dc.Route.at(0.4), ssl_dc.Route.DENSE)
    assert trainer_of(TINY)._routes(0.3) == (ssl_dc.Route.GATED, ssl_dc.Route.DENSE)


def test_a_share_of_the_steps_is_dense() -> None:
    trainer = trainer_of({**SEVERAL, "training.dense_share": 0.25})
    dense = 0
    for step in range(400):
        trainer.step = step
        dense += not any(route.gated for route in trainer._routes(0.4))
    assert 70 < dense < 130


def test_a_threshold_moves_most_at_its_own_budget_and_never_past_a_smaller_budget() -> None:
    trainer = trainer_of(SEVERAL)
    encoder = trainer.learner.encoder
    control = AdaptiveControl(trainer.budgets, trainer.cost)
    images = torch.randn(8, 3, 8, 8)
    control.after_step(encoder, images, 0, 0.8)  # half open at first: it pays less than 0.8, so thresholds fall
    moved = [-threshold for threshold in control._thresholds.tolist()]
    assert moved == sorted(moved)
    assert moved[-1] > 2 * moved[0] > 0
    assert control.metrics()["evaluated_budget"] == 0.8
    again = AdaptiveControl(trainer.budgets, trainer.cost)
    again.restore(json.loads(json.dumps(control.state())))
    assert torch.equal(again._thresholds, control._thresholds)
    assert again.metrics() == control.metrics()
    gate = gates_of(encoder)[0]
    assert gate.thresholds.mean(dim=1).tolist() == pytest.approx(control._thresholds.tolist(), abs=1e-6)


def test_the_control_reads_no_number_from_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """To read one waits until a GPU has done all its work, and the GPU then waits for the next step."""
    trainer = trainer_of(SEVERAL)
    control = AdaptiveControl(trainer.budgets, trainer.cost)
    images = torch.randn(8, 3, 8, 8)
    with monkeypatch.context() as patched:
        for reading in ("item", "tolist", "__float__", "__int__", "__bool__", "cpu", "numpy"):
            patched.setattr(torch.Tensor, reading, lambda *_, reading=reading: pytest.fail(f"{reading} waits"))
        for step in (0, 5):
            control.after_step(trainer.learner.encoder, images, step, 0.4)
    assert control.metrics()["evaluated_budget"] == 0.4


@pytest.mark.long
@pytest.mark.parametrize("gating", [{"gating.name": "prefix"}, {"gating.start": "ordered"}])
def test_calibration_brings_each_budget_to_its_cost(gating: dict[str, Any]) -> None:
    trainer = trainer_of({**SEVERAL, **gating, "backbone.width": 16, "gating.name": gating.get("gating.name", "dgnet")})
    images = torch.randn(64, 3, 8, 8)
    encoder = trainer.learner.encoder.eval()
    paid = calibrate(encoder, [images], trainer.cost, trainer.budgets)
    assert paid == pytest.approx(list(trainer.budgets), abs=0.02)
    thresholds = gates_of(encoder)[0].thresholds.mean(dim=1)
    assert (thresholds[:-1] >= thresholds[1:]).all()


@given(
    jumps=st.lists(st.floats(-8, 8), min_size=1, max_size=30, unique=True),
    highest=st.floats(-9, 9),
    about=st.floats(-9, 9),
    budget=st.floats(0.0, 1.0),
)
def test_the_nearest_cost_is_found_though_it_falls_in_jumps(
    jumps: list[float], highest: float, about: float, budget: float
) -> None:
    """As with prefix, whose cost falls by whole channels: no cost beside the budget is left out."""
    calls: list[float] = []

    def cost_at(threshold: float) -> float:
        calls.append(threshold)
        return sum(jump > threshold for jump in jumps) / len(jumps)

    about = min(about, highest)
    threshold, paid = _nearest(cost_at, budget, about, highest)
    assert threshold <= highest
    assert paid == cost_at(threshold)
    edges = sorted({-16.0, *jumps, highest})
    gaps = [after - before for before, after in pairwise(edges)]
    if min(gaps, default=1) > 0.01:  # the narrowest place that all steps are sure to find
        reachable = {sum(jump > at for jump in jumps) / len(jumps) for at in [*jumps, -16.0, highest] if at <= highest}
        assert abs(paid - budget) <= min(abs(each - budget) for each in reachable) + 1e-4
    assert len(calls) <= 33


@pytest.mark.long
def test_a_run_for_many_budgets_is_loaded_dialled_and_resumed(tmp_path: Path) -> None:
    class StopAfterTwo(ssl_dc.Watcher):
        def on_epoch_end(self, epoch: int) -> None:
            if epoch == 2:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ssl_dc.train(SEVERAL, output=tmp_path / "stopped", watchers=[StopAfterTwo()])
    ssl_dc.resume(tmp_path / "stopped")
    whole = ssl_dc.train(SEVERAL, output=tmp_path / "whole")
    assert_same_files(tmp_path / "stopped", tmp_path / "whole", "metrics.jsonl", "model.safetensors")
    model = ssl_dc.load(whole.folder)
    images = torch.randn(40, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    ratios = [float(model.gated(images, budget).ratio.mean()) for budget in (0.2, 0.35, 0.5, 0.8)]
    assert ratios == sorted(ratios)
    mixed = model.gated(images[:2], [0.2, 0.8])
    for row, budget in enumerate((0.2, 0.8)):
        alone = model.gated(images[row : row + 1], budget)
        torch.testing.assert_close(mixed.features[row], alone.features[0])
    usual = model.gated(images)
    torch.testing.assert_close(usual.features, model.gated(images, 0.3).features)
