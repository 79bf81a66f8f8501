"""One executor at many budgets: each is laid out once, and the results are those of the reference at every turn."""

from __future__ import annotations

import random

import pytest
import torch
from torch import Tensor

import ssl_dc
from ssl_dc.compiled import layout
from ssl_dc.compiled.executor import Executor, compiled
from ssl_dc.errors import RunError
from ssl_dc.gating.base import PooledRule, set_budgets
from ssl_dc.gating.dgnet import DGNetGate
from ssl_dc.routes import Route
from tests.helpers.random_networks import random_encoder

BUDGETS = [0.1, 0.15, 0.2, 0.4, 0.55, 0.9]


def dialled_encoder(spread: float = 4.0, **settings: object) -> ssl_dc.Encoder:
    """An encoder with thresholds for three budgets."""
    encoder = random_encoder(**settings)
    set_budgets(encoder, [0.1, 0.4, 0.9])
    for module in encoder.modules():
        if isinstance(module, DGNetGate):
            module.thresholds[0] += spread
            module.thresholds[2] -= spread
    return encoder


def executor_of(encoder: ssl_dc.Encoder) -> Executor:
    return compiled(encoder.backbone(Route.GATED), Route.GATED, backend="native", threads=1)


@torch.no_grad()
def assert_as_reference(executor: Executor, encoder: ssl_dc.Encoder, images: Tensor, budget: float) -> None:
    found, expected = executor(images, budget), encoder(images, Route.at(budget))
    torch.testing.assert_close(found.features, expected.features, rtol=1e-4, atol=1e-5)
    for site, mask in expected.masks.items():
        assert torch.equal(found.masks[site], mask)


@pytest.fixture
def laid_out(monkeypatch: pytest.MonkeyPatch) -> list[PooledRule]:
    """The rules that were laid out."""
    laid: list[PooledRule] = []
    original = layout._laid_rule

    def counted(rule: PooledRule, kernel: object) -> tuple[Tensor, ...]:
        laid.append(rule)
        return original(rule, kernel)  # type: ignore[arg-type]

    monkeypatch.setattr(layout, "_laid_rule", counted)
    return laid


def test_a_budget_is_laid_out_once(laid_out: list[PooledRule]) -> None:
    encoder, images = dialled_encoder(), torch.randn(2, 3, 32, 32)
    executor = executor_of(encoder)
    gates = len(laid_out)
    assert gates == 8
    costs = [float(executor(images, budget).ratio.mean()) for budget in BUDGETS]
    assert costs == sorted(costs)
    assert costs[0] < costs[-1]
    assert len(laid_out) == gates * (1 + len(BUDGETS))
    draw = random.Random(0)
    for budget in draw.choices(BUDGETS, k=20):
        assert_as_reference(executor, encoder, images, budget)
    executor(images, BUDGETS[:2])
    executor(images)
    assert len(laid_out) == gates * (1 + len(BUDGETS))


def test_prepared_budgets_are_laid_out_before_the_first_call(laid_out: list[PooledRule]) -> None:
    encoder, images = dialled_encoder(), torch.randn(2, 3, 32, 32)
    executor = executor_of(encoder)
    usual = executor(images).features
    executor.prepare(BUDGETS)
    assert torch.equal(executor(images).features, usual)
    prepared = len(laid_out)
    for budget in BUDGETS:
        assert_as_reference(executor, encoder, images, budget)
    assert len(laid_out) == prepared


def test_budgets_that_were_forgotten_are_laid_out_again(
    laid_out: list[PooledRule], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layout, "KEPT_BYTES", 4 * 64 * 2)  # two budgets of a gate of 64 channels
    encoder, images = dialled_encoder(), torch.randn(2, 3, 32, 32)
    executor = executor_of(encoder)
    executor.prepare(BUDGETS)
    laid_out.clear()
    for budget in random.Random(1).choices(BUDGETS, k=20):
        assert_as_reference(executor, encoder, images, budget)
    assert laid_out


class Sharpened(DGNetGate):
    """A gate whose whole rule depends on the threshold, not its last bias alone."""

    def pooled_rule(self, threshold: Tensor) -> PooledRule:
        rule, factor = super().pooled_rule(threshold), 2 + threshold.mean().tanh()
        return rule._replace(weight=factor * rule.weight, bias=factor * rule.bias)


class Unruly(DGNetGate):
    """A gate that has no rule at high thresholds."""

    def pooled_rule(self, threshold: Tensor) -> PooledRule | None:  # type: ignore[override]
        return super().pooled_rule(threshold) if threshold.mean() < 2 else None


def turned_into(kind: type[DGNetGate], encoder: ssl_dc.Encoder) -> ssl_dc.Encoder:
    for module in encoder.modules():
        if type(module) is DGNetGate:
            module.__class__ = kind
    return encoder


def test_a_rule_may_depend_on_the_budget_as_a_whole() -> None:
    encoder, images = turned_into(Sharpened, dialled_encoder()), torch.randn(2, 3, 32, 32)
    executor = executor_of(encoder)
    for budget in random.Random(2).choices(BUDGETS, k=20):
        assert_as_reference(executor, encoder, images, budget)


def test_a_failed_change_of_budget_fails_each_time_and_leaves_the_others_right() -> None:
    encoder, images = turned_into(Unruly, dialled_encoder()), torch.randn(2, 3, 32, 32)
    encoder_at_middle = compiled(encoder.backbone(Route.at(0.4)), Route.at(0.4), backend="native", threads=1)
    for _ in range(2):
        with pytest.raises(RunError, match="a pooled rule at one budget and none at another"):
            encoder_at_middle(images, 0.1)
    for budget in (0.4, 0.9, 0.4):
        assert_as_reference(encoder_at_middle, encoder, images, budget)


@pytest.mark.parametrize(("wrong", "error"), [([0.5, 0.0], ValueError), ([1.5], ValueError), (["a"], TypeError)])
def test_what_is_no_budget_is_not_prepared(wrong: list[float], error: type[Exception]) -> None:
    with pytest.raises(error, match="a budget is"):
        executor_of(dialled_encoder()).prepare(wrong)


def test_a_dense_network_prepares_no_budget() -> None:
    encoder = random_encoder()
    executor = compiled(encoder.backbone(Route.DENSE), Route.DENSE, backend="native")
    with pytest.raises(ValueError, match="without gates has no budget"):
        executor.prepare([0.5])
