"""DGNet's losses: the budget penalty and the bound (method section 4)."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.gates import cost_of_two_sites
from ssl_dc.gating.cost import Trace
from ssl_dc.gating.dgnet import DGNet, bound, unevenness
from ssl_dc.gating.options import DGNetOptions

COST = cost_of_two_sites({"s": 4, "t": 2})


MASKS = {"s": torch.tensor([[1.0, 1, 0, 0], [1, 0, 0, 0]]), "t": torch.tensor([[0.0, 0], [1, 1]])}


# image 1: 100 + 300 + 0 + 10 = 410 of 1000; image 2: 100 + 150 + 300 + 10 = 560; densities 3/8 and 1/2
RATIO = (0.41 + 0.56) / 2


def plain_bound(densities: list[float], budget: float, p: float) -> float:
    target = math.sqrt(budget)
    total = 0.0
    for d in densities:
        total += max(0.0, p * target - d) ** 2
        total += max(0.0, d - 1 + p - p * target) ** 2
    return total / len(densities)


@pytest.mark.parametrize("budget", [0.1, 0.3, 0.9])
def test_penalty_by_hand(budget: float) -> None:
    losses = DGNet(DGNetOptions()).losses(Trace(MASKS, COST), budget, progress=0.2)
    assert set(losses) == {"budget", "bound"}
    assert losses["budget"].item() == pytest.approx(5 * (RATIO - budget) ** 2, rel=1e-5)


def test_penalty_squares_the_mean_ratio_not_each_image() -> None:
    losses = DGNet(DGNetOptions(penalty=3)).losses(Trace(MASKS, COST), RATIO, progress=0.2)
    assert losses["budget"].item() == pytest.approx(0, abs=1e-12)


def test_weights_of_the_losses_are_options() -> None:
    trace = Trace(MASKS, COST)
    default = DGNet(DGNetOptions()).losses(trace, 0.9, progress=0)
    doubled = DGNet(DGNetOptions(penalty=10, bound=2)).losses(trace, 0.9, progress=0)
    for name in ("budget", "bound"):
        assert default[name].item() > 0
        assert doubled[name].item() == pytest.approx(2 * default[name].item(), rel=1e-6)


def test_diversity_by_hand() -> None:
    """Shares of images by channel: 1, 1/2, 0, 0 at one site, and 1/2, 1/2 at the other."""
    losses = DGNet(DGNetOptions(diversity=2)).losses(Trace(MASKS, COST), 0.3, progress=0.2)
    variance = ((1 - 3 / 8) ** 2 + (1 / 2 - 3 / 8) ** 2 + 2 * (3 / 8) ** 2) / 4
    assert losses["diversity"].item() == pytest.approx(2 * (variance + 0) / 2, rel=1e-6)


@given(open_share=st.sampled_from([0.0, 0.25, 0.5, 1.0]))
def test_the_same_channels_for_every_image_are_the_least_even(open_share: float) -> None:
    first = (torch.arange(8) < 8 * open_share).float().expand(8, 8)
    rolled = torch.stack([first[0].roll(number) for number in range(8)])
    assert unevenness(first).item() == pytest.approx(open_share * (1 - open_share), abs=1e-6)
    assert unevenness(rolled).item() == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(
    ("p", "budget", "expected"),
    [
        # d* = 0.5: at p = 1 every density is pulled to 0.5
        (1.0, 0.25, (0.3**2 + 0.0 + 0.4**2) / 3),
        # at p = 0.5 the interval is [0.25, 0.75]
        (0.5, 0.25, (0.05**2 + 0.0 + 0.15**2) / 3),
        (0.0, 0.25, 0.0),
        # d* = 0.8: at p = 0.5 the interval is [0.4, 0.9]
        (0.5, 0.64, (0.2**2 + 0.0 + 0.0) / 3),
    ],
)
def test_bound_by_hand(p: float, budget: float, expected: float) -> None:
    densities = torch.tensor([0.2, 0.5, 0.9])
    assert bound(densities, math.sqrt(budget), p).item() == pytest.approx(expected, abs=1e-7)


@settings(max_examples=60)
@given(
    densities=st.lists(st.floats(0, 1), min_size=1, max_size=8),
    budget=st.floats(0.01, 1),
    p=st.sampled_from([0.0, 0.1, 0.5, 0.9, 1.0]),
)
def test_bound_is_the_formula_of_the_method(densities: list[float], budget: float, p: float) -> None:
    value = bound(torch.tensor(densities, dtype=torch.float64), math.sqrt(budget), p).item()
    assert value == pytest.approx(plain_bound(densities, budget, p), rel=1e-6, abs=1e-12)


@pytest.mark.parametrize("progress", [0.0, math.log(2) / 10, 0.2, 1.0])
def test_bound_is_relaxed_as_exp_of_minus_ten_progress(progress: float) -> None:
    for budget in (0.01, 0.3, 1.0):
        value = DGNet(DGNetOptions()).losses(Trace(MASKS, COST), budget, progress)["bound"].item()
        expected = plain_bound([3 / 8, 1 / 2], budget, math.exp(-10 * progress))
        assert value == pytest.approx(expected, rel=1e-5, abs=1e-9)


@pytest.mark.parametrize("epoch", [0, 10, 25])
def test_at_500_epochs_the_bound_is_relaxed_as_published(epoch: int) -> None:
    value = DGNet(DGNetOptions()).losses(Trace(MASKS, COST), 0.81, epoch / 500)["bound"].item()
    expected = plain_bound([3 / 8, 1 / 2], 0.81, math.exp(-0.02 * epoch))
    assert expected > 0
    assert value == pytest.approx(expected, rel=1e-5)


def test_bound_at_a_tenth_at_first_pushes_gates_open_against_the_budget() -> None:
    mask = torch.full((2, 4), 0.2, requires_grad=True)
    trace = Trace({"s": mask, "t": mask[:, :2]}, COST)
    losses = DGNet(DGNetOptions()).losses(trace, 0.1, progress=0)
    towards_open = -torch.autograd.grad(losses["bound"], mask, retain_graph=True)[0]
    towards_budget = -torch.autograd.grad(losses["budget"], mask)[0]
    assert (towards_open > 0).all()
    assert (towards_budget < 0).all()
