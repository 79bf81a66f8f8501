"""In-place distillation, and the share of the gradient that passes through gated views."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import ssl_dc
from helpers.settings import TINY, config_of
from helpers.training import Told, trainer_of
from ssl_dc.errors import ConfigError
from ssl_dc.training.distillation import distillation, with_gradient_share
from ssl_dc.training.learner import Learner

DISTILLED: dict[str, Any] = {**TINY, "training.distillation": 3.0}


def test_the_distance_by_hand() -> None:
    generator = np.random.default_rng(0)
    pairs = [(generator.normal(size=(6, 4)), generator.normal(size=(6, 4))) for _ in range(2)]
    expected = [((gated - dense) ** 2).sum() / ((dense - dense.mean(axis=0)) ** 2).sum() for gated, dense in pairs]
    found = distillation([(torch.tensor(gated), torch.tensor(dense)) for gated, dense in pairs])
    assert float(found) == pytest.approx(np.mean(expected), rel=1e-6)


def test_features_that_agree_are_at_no_distance_and_their_mean_at_one() -> None:
    dense = torch.randn(8, 5)
    assert float(distillation([(dense, dense)])) == 0
    assert float(distillation([(dense.mean(dim=0).expand(8, 5), dense)])) == pytest.approx(1)
    assert torch.isfinite(distillation([(torch.ones(8, 5), torch.zeros(8, 5))]))


def test_only_gated_features_get_a_gradient() -> None:
    gated, dense = (torch.randn(8, 5, requires_grad=True) for _ in range(2))
    distillation([(gated, dense)]).backward()  # type: ignore[no-untyped-call]
    assert dense.grad is None
    assert gated.grad is not None


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_a_share_of_the_gradient_passes_and_the_features_stay(share: float) -> None:
    features = torch.randn(3, 2, dtype=torch.float64, requires_grad=True)
    passed = with_gradient_share(features, share)
    assert torch.equal(passed, features) or torch.allclose(passed, features, rtol=1e-15)
    passed.sum().backward()  # type: ignore[no-untyped-call]
    assert features.grad is not None
    assert torch.allclose(features.grad, torch.full((3, 2), share, dtype=torch.float64))


def views_of(learner: Learner) -> list[Tensor]:
    device = next(learner.parameters()).device
    return [torch.randn(8, 3, 8, 8, generator=torch.Generator().manual_seed(seed)).to(device) for seed in (0, 1)]


def test_the_objective_sees_dense_features_only_and_gated_ones_are_compared_with_them() -> None:
    learner = trainer_of(DISTILLED).learner.eval()
    views = views_of(learner)
    output = learner(views, (ssl_dc.Route.GATED, ssl_dc.Route.DENSE))
    plain = learner(views, (ssl_dc.Route.DENSE, ssl_dc.Route.DENSE))
    assert all(torch.equal(value, plain.objective.terms[name]) for name, value in output.objective.terms.items())
    ((gated, dense),) = output.distilled
    assert torch.equal(gated, learner.encoder(views[0], ssl_dc.Route.GATED).features)
    assert torch.equal(dense, learner.encoder(views[0], ssl_dc.Route.DENSE).features)
    assert not dense.requires_grad
    assert output.masks[0]
    assert not output.masks[1]
    assert plain.distilled == []


def test_without_it_the_objective_sees_the_gated_features() -> None:
    learner = trainer_of(TINY).learner.eval()
    views = views_of(learner)
    output = learner(views, (ssl_dc.Route.GATED, ssl_dc.Route.DENSE))
    plain = learner(views, (ssl_dc.Route.DENSE, ssl_dc.Route.DENSE))
    assert any(not torch.equal(value, plain.objective.terms[name]) for name, value in output.objective.terms.items())
    assert output.distilled == []


@pytest.mark.parametrize(
    "more", [{}, {"budget.target": "0.2:0.8"}, {"training.dense_share": 0.5}, {"encoder.name": "double"}]
)
def test_a_training_logs_the_weighted_distance_as_a_term(more: dict[str, Any]) -> None:
    trainer, told = trainer_of({**DISTILLED, **more}), Told()
    trainer.fit(watchers=[told])
    values = [metrics.values for metrics in told.metrics]
    terms = [sum(value for name, value in each.items() if name.startswith("terms/")) for each in values]
    assert [each["loss"] for each in values] == pytest.approx(terms, rel=1e-5)
    logged = ["terms/distillation" in each for each in values]
    assert logged == ["cost_ratio" in each for each in values]
    assert any(logged)
    assert all(each["terms/distillation"] > 0 for each in values if "cost_ratio" in each)


def test_no_gradient_of_the_objective_reaches_gates_at_a_share_of_0() -> None:
    trainer = trainer_of({**TINY, "training.gated_gradient": 0.0})
    learner = trainer.learner
    output = learner(views_of(learner), (ssl_dc.Route.GATED, ssl_dc.Route.DENSE))
    sum(output.objective.terms.values()).backward()
    gates = [parameter for name, parameter in learner.named_parameters() if "gate" in name]
    assert gates
    assert all(parameter.grad is None or not parameter.grad.any() for parameter in gates)


def test_both_at_once_are_refused() -> None:
    with pytest.raises(ConfigError, match="gated_gradient has no effect with distillation"):
        config_of({**DISTILLED, "training.gated_gradient": 0.5})


@pytest.mark.parametrize("setting", [{"training.distillation": 1.0}, {"training.gated_gradient": 0.5}])
def test_where_no_view_is_gated_either_is_refused(setting: dict[str, float]) -> None:
    (name,) = setting
    alone = {key: value for key, value in TINY.items() if not key.startswith(("gating.", "budget."))}
    with pytest.raises(ConfigError, match=f"{name}: no view is gated"):
        config_of({**alone, "gating.name": "none", "budget.target": None, "routes": ["dense", "dense"], **setting})
