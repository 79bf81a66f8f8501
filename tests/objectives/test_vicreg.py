"""VICReg's weights, and embeddings whose loss is known (method section 2)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from helpers.objectives import embeddings, on_embeddings, run, weighted_sum
from ssl_dc.objectives.options import VICRegOptions
from ssl_dc.objectives.vicreg import VICReg


def vicreg(**options: Any) -> VICReg:
    """The objective without its expander, so that features are embeddings."""
    return on_embeddings(VICReg(VICRegOptions(**options), feature_dim=4))


def test_default_weights_are_25_25_1() -> None:
    assert dict(vicreg().weights) == {"invariance": 25, "variance": 25, "covariance": 1}


def test_weights_follow_the_options() -> None:
    assert dict(vicreg(invariance=0, variance=3, covariance=7).weights) == {"invariance": 0, "variance": 3, "covariance": 7}


def test_mean_over_views_halves_the_variance_term_and_nothing_else() -> None:
    z1, z2 = (torch.from_numpy(z) for z in embeddings(seed=1, rows=7, columns=4, scale=0.3))
    default = run(vicreg(), z1, z2).terms
    summed = run(vicreg(variance_over_views="sum"), z1, z2).terms
    halved = run(vicreg(variance_over_views="mean"), z1, z2).terms
    assert default["variance"].item() == summed["variance"].item() > 0
    assert halved["variance"].item() == pytest.approx(summed["variance"].item() / 2, rel=1e-6)
    for name in ("invariance", "covariance"):
        assert halved[name].item() == summed[name].item()


def test_constant_embedding_costs_the_whole_variance_term_and_has_a_finite_gradient() -> None:
    z = torch.full((8, 4), 0.7, requires_grad=True)
    objective = vicreg()
    output = run(objective, z, z)
    assert output.terms["variance"].item() == pytest.approx(2 * (1 - 0.01), abs=1e-6)
    assert output.terms["invariance"].item() == 0
    assert output.terms["covariance"].item() == pytest.approx(0, abs=1e-12)
    weighted_sum(objective, output).backward()
    assert z.grad is not None
    assert torch.isfinite(z.grad).all()


def test_wide_decorrelated_equal_embeddings_cost_nothing() -> None:
    z = 2 * torch.tensor([[1.0, 1], [1, -1], [-1, 1], [-1, -1]])
    for name, term in run(vicreg(), z, z).terms.items():
        assert term.item() == pytest.approx(0, abs=1e-7), name


def test_expander_equals_plain_linear_batch_norm_relu_chain() -> None:
    torch.manual_seed(0)
    objective = VICReg(VICRegOptions(expander_width=8), feature_dim=5).double()
    x = torch.randn(9, 5, dtype=torch.float64) * 2 + 1
    weights = [(m.weight.detach().numpy(), m.bias.detach().numpy()) for m in objective.expander if hasattr(m, "weight")]
    value = x.numpy()
    for index, (weight, bias) in enumerate(weights):
        if index in (1, 3):
            mean, biased = value.mean(axis=0), ((value - value.mean(axis=0)) ** 2).mean(axis=0)
            value = np.maximum((value - mean) / np.sqrt(biased + 1e-5) * weight + bias, 0)
        else:
            value = value @ weight.T + bias
    output = run(objective, x, x)
    np.testing.assert_allclose(output.embeddings[0].detach().numpy(), value, rtol=1e-9, atol=1e-12)
