"""Barlow Twins: its weights, its cross-correlation, and embeddings whose loss is known (method section 2)."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from helpers.objectives import barlow_twins_terms, embeddings, on_embeddings, run, weighted_sum
from ssl_dc.objectives.barlow_twins import BarlowTwins, cross_correlation
from ssl_dc.objectives.options import BarlowTwinsOptions


def barlow_twins(**options: Any) -> BarlowTwins:
    """The objective without its expander, so that features are embeddings."""
    return on_embeddings(BarlowTwins(BarlowTwinsOptions(**options), feature_dim=4))


def test_loss_is_scale_times_diagonal_plus_lambda_off_diagonal() -> None:
    z1, z2 = embeddings(seed=5, rows=9, columns=4, scale=1.0)
    terms = barlow_twins_terms(z1, z2)
    for objective in (barlow_twins(), barlow_twins(off_diagonal=0.25, scale=3.0)):
        loss = weighted_sum(objective, run(objective, torch.from_numpy(z1), torch.from_numpy(z2))).item()
        options = objective.options
        expected = options.scale * (terms["on_diagonal"] + options.off_diagonal * terms["off_diagonal"])
        assert loss == pytest.approx(expected, rel=1e-4)


def test_published_defaults() -> None:
    options = BarlowTwinsOptions()
    assert (options.off_diagonal, options.scale, options.expander_width) == (0.0051, 0.024, 2048)
    weights = barlow_twins().weights
    assert weights["on_diagonal"] == pytest.approx(0.024)
    assert weights["off_diagonal"] == pytest.approx(0.024 * 0.0051)


def test_cross_correlation_uses_biased_statistics_of_each_batch_alone() -> None:
    z1 = torch.tensor([[0.0, 1.0], [2.0, 5.0]], dtype=torch.float64)
    z2 = torch.tensor([[10.0, 3.0], [30.0, 1.0]], dtype=torch.float64)
    # with the biased deviation each column is (-1, 1) or (1, -1); with the unbiased one, entries would be 1/2
    expected = torch.tensor([[1.0, -1.0], [1.0, -1.0]], dtype=torch.float64)
    torch.testing.assert_close(cross_correlation(z1, z2), expected, rtol=0, atol=2e-5)


def test_cross_correlation_has_the_first_view_in_its_rows() -> None:
    z1, z2 = (torch.from_numpy(z) for z in embeddings(seed=2, rows=7, columns=3, scale=1.0))
    torch.testing.assert_close(cross_correlation(z1, z2), cross_correlation(z2, z1).T)
    assert not torch.allclose(cross_correlation(z1, z2), cross_correlation(z2, z1), atol=1e-2)


def test_equal_decorrelated_views_cost_nothing() -> None:
    z = 2 * torch.tensor([[1.0, 1], [1, -1], [-1, 1], [-1, -1]])
    for name, term in run(barlow_twins(), z, z).terms.items():
        assert term.item() == pytest.approx(0, abs=1e-9), name


def test_constant_embedding_costs_its_whole_diagonal_and_has_a_finite_gradient() -> None:
    z = torch.full((8, 4), 0.7, requires_grad=True)
    objective = barlow_twins()
    output = run(objective, z, z)
    assert output.terms["on_diagonal"].item() == pytest.approx(4, abs=1e-5)
    assert output.terms["off_diagonal"].item() == pytest.approx(0, abs=1e-9)
    weighted_sum(objective, output).backward()
    assert z.grad is not None
    assert torch.isfinite(z.grad).all()


def test_a_views_own_scale_and_mean_do_not_count() -> None:
    x = torch.randn(9, 4, generator=torch.Generator().manual_seed(0))
    assert run(barlow_twins(), x, 5 * x - 7).terms["on_diagonal"].item() == pytest.approx(0, abs=1e-8)
