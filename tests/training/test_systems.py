"""The systems that the paper compares, as the training loop runs them (the table of method section 1)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from helpers.settings import TWO_BY_TWO
from helpers.training import Told, trainer_of
from ssl_dc.gating.base import Gate, gates_of
from ssl_dc.reproduction.systems import BASELINE1, BASELINE2, DOUBLE, DUAL, NO_INVARIANCE, System
from ssl_dc.routes import Route
from ssl_dc.trackers.base import StepMetrics, Watcher
from ssl_dc.training.learner import LearnerOutput
from ssl_dc.training.trainer import Trainer

BUDGET = 0.3
SETTINGS = {**TWO_BY_TWO, "objective.expander_width": 8, "budget.control": "penalty"}
STEPS_PER_EPOCH = 2


def system_trainer(system: System, settings: Mapping[str, Any] | None = None) -> Trainer:
    kept = {key: value for key, value in SETTINGS.items() if system.budgeted or not key.startswith("budget.")}
    target = {"budget.target": BUDGET} if system.budgeted else {}
    return trainer_of({**kept, **target, **system.settings, **(settings or {})})


def record_outputs(trainer: Trainer) -> list[LearnerOutput]:
    outputs: list[LearnerOutput] = []
    trainer.learner.register_forward_hook(lambda _m, _a, output: outputs.append(output))
    return outputs


def record_routes(trainer: Trainer) -> list[Route]:
    """The route of every view that enters the encoder, in order."""
    routes: list[Route] = []
    trainer.learner.encoder.register_forward_pre_hook(lambda _m, args: routes.append(args[1]))
    return routes


def share_by_hand(trainer: Trainer, masks: Mapping[str, Tensor]) -> float:
    """Mean share of the dense cost, layer by layer."""
    total = 0.0
    for layer in trainer.cost.layers:
        macs = torch.full((len(next(iter(masks.values()))),), float(layer.macs), dtype=torch.float64)
        for site in layer.sites:
            macs = macs * masks[site].double().mean(dim=1)
        total += macs.mean().item()
    return total / trainer.cost.dense_macs


def bound_by_hand(masks: Mapping[str, Tensor], progress: float) -> float:
    p, target = math.exp(-10 * progress), math.sqrt(BUDGET)
    densities = [mask.double().mean().item() for mask in masks.values()]
    return sum(max(0, p * target - d) ** 2 + max(0, d - 1 + p - p * target) ** 2 for d in densities) / len(densities)


# Baseline-1


def test_baseline1_has_no_gate_at_all() -> None:
    told = Told()
    trainer = system_trainer(BASELINE1)
    routes = record_routes(trainer)
    assert gates_of(trainer.learner) == []
    assert not any(isinstance(module, Gate) for module in trainer.learner.modules())
    assert not [name for name, _ in trainer.learner.named_parameters() if "gate." in name]
    assert not [name for name, _ in trainer.learner.named_buffers() if "gate." in name]
    assert trainer.cost.channels == {}
    trainer.fit(watchers=[told])
    assert routes == [Route.DENSE, Route.DENSE] * len(told.metrics)
    for values in (metrics.values for metrics in told.metrics):
        assert {name for name in values if name.startswith("terms/")} == {
            f"terms/{name}" for name in ("invariance", "variance", "covariance")
        }
        assert "cost_ratio" not in values


def test_baseline1_has_every_other_parameter_of_dual_with_shared_norms() -> None:
    without = system_trainer(BASELINE1, {"norm.name": "shared"}).learner.encoder
    dual = system_trainer(DUAL, {"norm.name": "shared"}).learner.encoder
    names = {name for name, _ in dual.named_parameters() if ".gate." not in name}
    assert {name for name, _ in without.named_parameters()} == names


# Baseline-2


def test_baseline2_pays_the_mean_of_both_views_gating_losses() -> None:
    told = Told()
    trainer = system_trainer(BASELINE2)
    routes, outputs = record_routes(trainer), record_outputs(trainer)
    trainer.fit(watchers=[told])
    assert routes == [Route.GATED, Route.GATED] * len(outputs)
    assert len(outputs) == len(told.metrics) == 2 * STEPS_PER_EPOCH
    different = False
    for step, (output, metrics) in enumerate(zip(outputs, told.metrics, strict=True)):
        values = metrics.values
        assert len(output.masks) == 2
        shares = [share_by_hand(trainer, masks) for masks in output.masks]
        different |= shares[0] != shares[1]
        progress = step / trainer.total_steps
        budget = sum(5 * (share - BUDGET) ** 2 for share in shares) / 2
        bound = sum(bound_by_hand(masks, progress) for masks in output.masks) / 2
        assert values["terms/budget"] == pytest.approx(budget, rel=1e-4)
        assert values["terms/bound"] == pytest.approx(bound, rel=1e-4, abs=1e-8)
        assert values["cost_ratio"] == pytest.approx(sum(shares) / 2, rel=1e-5)
    assert different, "the views decide alike: one of them alone would give the same"


# Dual


@pytest.mark.parametrize("system", [DUAL, DOUBLE], ids=lambda system: system.name)
def test_dual_pays_the_gating_loss_of_view_1(system: System) -> None:
    told = Told()
    trainer = system_trainer(system)
    routes, outputs = record_routes(trainer), record_outputs(trainer)
    trainer.fit(watchers=[told])
    assert routes == [Route.GATED, Route.DENSE] * len(outputs)
    for step, (output, metrics) in enumerate(zip(outputs, told.metrics, strict=True)):
        values = metrics.values
        gated, dense = output.masks
        assert dense == {}
        share = share_by_hand(trainer, gated)
        assert values["terms/budget"] == pytest.approx(5 * (share - BUDGET) ** 2, rel=1e-4)
        assert values["terms/bound"] == pytest.approx(bound_by_hand(gated, step / trainer.total_steps), rel=1e-4, abs=1e-8)
        terms = sum(value for name, value in values.items() if name.startswith("terms/"))
        assert values["loss"] == pytest.approx(terms, rel=1e-5)


# Without invariance


def test_without_invariance_its_weight_is_0_and_nothing_else_changes() -> None:
    told = Told()
    trainer = system_trainer(NO_INVARIANCE)
    outputs = record_outputs(trainer)
    assert dict(trainer.learner.objective.weights) == {"invariance": 0, "variance": 25, "covariance": 1}
    assert trainer.routes == (Route.GATED, Route.DENSE)
    trainer.fit(watchers=[told])
    for output, metrics in zip(outputs, told.metrics, strict=True):
        values = metrics.values
        assert values["terms/invariance"] == 0
        assert output.objective.terms["invariance"].item() > 0
        others = sum(values[f"terms/{name}"] for name in ("variance", "covariance", "budget", "bound"))
        assert values["loss"] == pytest.approx(others, rel=1e-5)


# Gate warm-up


class GateWatch(Watcher):
    """Counts the gradients that gates get and the changes of their parameters and buffers, step by step."""

    def __init__(self) -> None:
        self.gradients = [0]
        self.changed: list[int] = []
        self.terms: list[set[str]] = []

    def begin(self, learner: nn.Module) -> None:
        self._gates = gates_of(learner)
        for gate in self._gates:
            for parameter in gate.parameters():
                parameter.register_hook(self._count)
        self._last = self._state()

    def on_step(self, metrics: StepMetrics) -> None:
        now = self._state()
        self.changed.append(sum(not torch.equal(a, b) for a, b in zip(self._last, now, strict=True)))
        self.terms.append({name for name in metrics.values if name.startswith("terms/")})
        self._last = now
        self.gradients.append(0)

    def _count(self, _gradient: Tensor) -> None:
        self.gradients[-1] += 1

    def _state(self) -> list[Tensor]:
        return [t.detach().clone() for gate in self._gates for t in (*gate.parameters(), *gate.buffers())]


@pytest.mark.parametrize("optimizer", ["adamw", "lars"])
@pytest.mark.parametrize("control", ["penalty", "adaptive"])
def test_gates_rest_while_they_warm_up_and_learn_afterwards(optimizer: str, control: str) -> None:
    settings = {
        "optimizer.name": optimizer,
        "optimizer.lr": 0.01,
        "training.warmup_share": 0.0,
        "training.gate_warmup": 2,
        "training.epochs": 4,
        "budget.control": control,
    }
    watch = GateWatch()
    trainer = system_trainer(DUAL, settings)
    routes = record_routes(trainer)
    watch.begin(trainer.learner)
    before = [p.detach().clone() for p in trainer.learner.encoder.parameters()]
    trainer.fit(watchers=[watch])
    rest = 2 * STEPS_PER_EPOCH
    assert len(watch.changed) == 4 * STEPS_PER_EPOCH
    assert watch.gradients[:rest] == [0] * rest
    assert watch.changed[:rest] == [0] * rest
    parameters = sum(len(list(gate.parameters())) for gate in gates_of(trainer.learner))
    assert watch.gradients[rest:-1] == [parameters] * rest
    assert all(changed > 0 for changed in watch.changed[rest:])
    assert all("terms/budget" not in terms for terms in watch.terms[:rest])
    assert all("terms/budget" in terms for terms in watch.terms[rest:])
    assert routes[: 2 * rest] == [Route.DENSE] * (2 * rest)
    if control == "penalty":  # the other looks at the gated cost between steps
        assert routes[2 * rest :] == [Route.GATED, Route.DENSE] * rest
    moved = [not torch.equal(a, b) for a, b in zip(before, trainer.learner.encoder.parameters(), strict=True)]
    assert sum(moved) > len(moved) / 2
