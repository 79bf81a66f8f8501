"""Gates in training: their warm-up, their loss, and the control that meets the budget."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import ssl_dc
from helpers.settings import TINY, TWO_BY_TWO, config_of
from helpers.training import Told, learner_at, logged
from ssl_dc.assemble import build_network, build_objective
from ssl_dc.gating.base import gates_of
from ssl_dc.model import Model
from ssl_dc.routes import Route
from ssl_dc.training.learner import Learner
from ssl_dc.training.trainer import parameter_groups

OBJECTIVE_TERMS = {"terms/invariance", "terms/variance", "terms/covariance"}


def terms_of(line: dict[str, Any]) -> set[str]:
    return {name for name in line if name.startswith("terms/")}


@pytest.mark.long
@pytest.mark.parametrize("gating", ["dgnet", "convnet_aig"])
def test_gates_are_left_alone_during_their_warm_up(tmp_path: Path, gating: str) -> None:
    folder = tmp_path / "run"
    ssl_dc.train({**TWO_BY_TWO, "gating.name": gating, "training.gate_warmup": 1, "norm.name": "separate"}, output=folder)
    start = {
        f"encoder.{name}": value for name, value in Model.untrained(ssl_dc.load(folder).config).encoder.state_dict().items()
    }
    after_warmup, after_all = learner_at(folder, 2), learner_at(folder, 4)
    gates = [name for name in after_warmup if ".gate." in name and not name.endswith(".budgets")]
    others = [name for name in after_warmup if name.endswith("conv1.weight") and "encoder" in name]
    gated_norms = [name for name in after_warmup if ".norm1.gated." in name]
    assert gates
    assert others
    assert gated_norms
    for name in (*gates, *gated_norms):
        assert torch.equal(after_warmup[name], start[name]), name
    assert all(not torch.equal(after_warmup[name], start[name]) for name in others)
    assert any(not torch.equal(after_all[name], start[name]) for name in gates if name.endswith("weight"))
    assert "NaN" not in (folder / "metrics.jsonl").read_text(), "a line that is not JSON, just after the warm-up"
    warm, trained = logged(folder)[:2], logged(folder)[2:]
    for line in warm:
        assert terms_of(line) == OBJECTIVE_TERMS
        assert "cost_ratio" not in line
    for line in trained:
        assert terms_of(line) > OBJECTIVE_TERMS
        assert 0 < line["cost_ratio"] < 2


@pytest.mark.long
@pytest.mark.parametrize("budget", [0.2, 0.5])
@pytest.mark.parametrize("width", [8, 16])
def test_the_adaptive_control_meets_the_budget_image_by_image(tmp_path: Path, budget: float, width: int) -> None:
    run = ssl_dc.train(
        {
            **TINY,
            "data.limit": 256,
            "training.batch_size": 32,
            "data.test_limit": None,
            "backbone.width": width,
            "training.epochs": 4,
            "budget.target": budget,
        },
        output=tmp_path / "run",
    )
    assert logged(run.folder)[-1]["step"] == 32
    assert run.outcome.measured_on == "360 held-out images"
    assert run.outcome.routes[Route.GATED].ratio == pytest.approx(budget, abs=0.02)
    images = torch.randn(64, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    masks = torch.cat(list(run.model.gated(images).masks.values()), dim=1)
    assert len(masks.unique(dim=0)) > 8, "gates must decide for each image"
    thresholds = [float(gate.thresholds.double().mean()) for gate in gates_of(run.model.encoder)]
    assert thresholds == pytest.approx([thresholds[0]] * len(thresholds), abs=5e-7)
    assert thresholds[0] != 0


@pytest.mark.long
def test_the_adaptive_control_looks_at_what_evaluation_pays(tmp_path: Path) -> None:
    ssl_dc.train({**TINY, "training.epochs": 4}, output=tmp_path / "run")
    found = logged(tmp_path / "run")
    assert len({line["evaluated_cost_ratio"] for line in found}) > 1
    thresholds = [line["gate_threshold"] for line in found]
    looks = [(i, line) for i, line in enumerate(found) if i and line["gate_threshold"] != found[i - 1]["gate_threshold"]]
    assert looks
    for i, line in looks:
        rose = thresholds[i] > thresholds[i - 1]
        assert rose == (line["evaluated_cost_ratio"] > 0.3)


def test_the_papers_penalty_leaves_the_thresholds_at_nothing(tmp_path: Path) -> None:
    run = ssl_dc.train({**TWO_BY_TWO, "budget.control": "penalty"}, output=tmp_path / "run")
    assert not any(gate.thresholds.any() for gate in gates_of(run.model.encoder))
    assert "gate_threshold" not in logged(run.folder)[-1]
    assert "cost_ratio" in logged(run.folder)[-1]


def test_the_dense_baseline_has_neither_gates_nor_gating_terms(tmp_path: Path) -> None:
    run = ssl_dc.train({**TWO_BY_TWO, "gating.name": "none"}, output=tmp_path / "run")
    assert set(run.outcome.routes) == {Route.DENSE}
    assert run.outcome.budget is None
    for line in logged(run.folder):
        assert "cost_ratio" not in line
        assert terms_of(line) == OBJECTIVE_TERMS


@pytest.mark.long
def test_gating_loss_of_two_gated_views_is_their_mean(tmp_path: Path) -> None:
    ssl_dc.train({**TWO_BY_TWO, "routes": ["gated", "gated"], "gating.bound": 0.0}, output=tmp_path / "run")
    for line in logged(tmp_path / "run"):
        # the mean of 5 (a - t)^2 and 5 (b - t)^2 is at least 5 ((a + b) / 2 - t)^2, and near it when a is near b
        least = 5 * (line["cost_ratio"] - 0.3) ** 2
        assert least <= line["terms/budget"] * (1 + 1e-4) <= least + 0.05


def test_gates_are_a_group_of_their_own_without_weight_decay() -> None:
    config = config_of(TINY)
    network = build_network(config)
    learner = Learner(network.encoder, build_objective(config, network.encoder.feature_dim))
    decayed, gates = parameter_groups(learner)
    assert (decayed.decay, gates.decay) == (True, False)
    of_gates = {id(p) for gate in gates_of(learner) for p in gate.parameters()}
    assert {id(p) for p in gates.parameters} == of_gates
    everything = [id(p) for group in (decayed, gates) for p in group.parameters]
    assert sorted(everything) == sorted(id(p) for p in learner.parameters())
    for parameter in learner.objective.parameters():
        parameter.requires_grad_(False)
    assert not {id(p) for group in parameter_groups(learner) for p in group.parameters} & {
        id(p) for p in learner.objective.parameters()
    }
    bare = config_of({**TINY, "gating.name": "none"})
    groups = parameter_groups(build_network(bare).encoder)
    assert [group.decay for group in groups] == [True]


def test_a_budget_that_the_gates_cannot_meet_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for place in ("ssl_dc.calibration", "ssl_dc.budget_control"):
        monkeypatch.setattr(f"{place}.set_threshold", lambda *_arguments: None)
    told = Told()
    run = ssl_dc.train({**TWO_BY_TWO, "budget.target": 0.9}, output=tmp_path / "run", watchers=[told])
    assert run.outcome.routes[Route.GATED].ratio < 0.85
    (message,) = told.messages
    assert message.startswith("the budget is missed: 0.9 of the dense cost was asked for, 0.")
