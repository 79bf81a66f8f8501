"""Barlow Twins against a plain statement of its equations (method section 2)."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor, nn

from ssl_dc.objectives.barlow_twins import BarlowTwins, cross_correlation
from ssl_dc.objectives.base import EncodedViews, ObjectiveOutput
from ssl_dc.objectives.options import BarlowTwinsOptions
from ssl_dc.routes import Route

torch.set_num_threads(1)  # on networks this small, threads only wait for one another

Array = NDArray[np.float64]

EPS = 1e-5


def plain_standardised(z: Array) -> Array:
    """Each column less its mean, over the root of its biased variance plus eps."""
    rows, columns = z.shape
    result = np.zeros_like(z)
    for j in range(columns):
        mean = sum(z[i, j] for i in range(rows)) / rows
        biased = sum((z[i, j] - mean) ** 2 for i in range(rows)) / rows
        for i in range(rows):
            result[i, j] = (z[i, j] - mean) / math.sqrt(biased + EPS)
    return result


def plain_terms(z1: Array, z2: Array) -> dict[str, float]:
    rows, columns = z1.shape
    s1, s2 = plain_standardised(z1), plain_standardised(z2)
    on_diagonal = off_diagonal = 0.0
    for i in range(columns):
        for j in range(columns):
            entry = sum(s1[n, i] * s2[n, j] for n in range(rows)) / rows
            if i == j:
                on_diagonal += (entry - 1) ** 2
            else:
                off_diagonal += entry**2
    return {"on_diagonal": on_diagonal, "off_diagonal": off_diagonal}


def plain_loss(z1: Array, z2: Array, off_diagonal: float, scale: float) -> float:
    terms = plain_terms(z1, z2)
    return scale * (terms["on_diagonal"] + off_diagonal * terms["off_diagonal"])


def finite_differences(z1: Array, z2: Array, off_diagonal: float, scale: float) -> tuple[Array, Array]:
    gradients = []
    for view in range(2):
        gradient = np.zeros_like(z1)
        for index in np.ndindex(*z1.shape):
            step = 1e-6 * np.abs(z1).max()
            values = []
            for sign in (1.0, -1.0):
                moved = [z1.copy(), z2.copy()]
                moved[view][index] += sign * step
                values.append(plain_loss(moved[0], moved[1], off_diagonal, scale))
            gradient[index] = (values[0] - values[1]) / (2 * step)
        gradients.append(gradient)
    return gradients[0], gradients[1]


def on_embeddings(options: BarlowTwinsOptions | None = None) -> BarlowTwins:
    """The objective with an expander that changes nothing, so that features are embeddings."""
    objective = BarlowTwins(options or BarlowTwinsOptions(expander_width=4), feature_dim=4)
    objective.expander = nn.Identity()  # type: ignore[assignment]
    return objective


def run(objective: BarlowTwins, z1: Tensor, z2: Tensor) -> ObjectiveOutput:
    return objective(EncodedViews((z1, z2), (z1, z2), (Route.GATED, Route.DENSE)))


def total(objective: BarlowTwins, output: ObjectiveOutput) -> Tensor:
    assert set(output.terms) == set(objective.weights)
    return torch.stack([objective.weights[name] * term for name, term in output.terms.items()]).sum()


def embeddings(seed: int, rows: int, columns: int, scale: float) -> tuple[Array, Array]:
    """Two correlated, badly centred embeddings whose dimensions differ in spread."""
    generator = np.random.default_rng(seed)
    mixing = generator.normal(size=(columns, columns))
    z1 = generator.normal(size=(rows, columns)) @ mixing + generator.normal(size=columns)
    z2 = z1 + 0.5 * generator.normal(size=(rows, columns))
    return scale * z1, scale * z2


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    rows=st.integers(2, 8),
    columns=st.integers(2, 5),
    scale=st.sampled_from([0.003, 0.3, 20.0]),  # at 0.003 the eps of the standardisation shows
)
def test_terms_are_those_of_the_equations(seed: int, rows: int, columns: int, scale: float) -> None:
    z1, z2 = embeddings(seed, rows, columns, scale)
    output = run(on_embeddings(), torch.from_numpy(z1), torch.from_numpy(z2))
    expected = plain_terms(z1, z2)
    assert set(output.terms) == set(expected)
    for name, value in expected.items():
        assert output.terms[name].shape == ()
        assert output.terms[name].item() == pytest.approx(value, rel=1e-3, abs=1e-5), name


@pytest.mark.parametrize("scale", [0.003, 0.3, 20.0])
def test_gradient_is_that_of_the_equations(scale: float) -> None:
    z1, z2 = embeddings(seed=3, rows=6, columns=4, scale=scale)
    objective = on_embeddings(BarlowTwinsOptions(off_diagonal=0.3, scale=0.1))
    t1, t2 = torch.from_numpy(z1).requires_grad_(), torch.from_numpy(z2).requires_grad_()
    total(objective, run(objective, t1, t2)).backward()
    expected = finite_differences(z1, z2, off_diagonal=0.3, scale=0.1)
    for tensor, gradient in zip((t1, t2), expected, strict=True):
        assert tensor.grad is not None
        size = np.abs(gradient).max()
        assert size > 0
        np.testing.assert_allclose(tensor.grad.numpy(), gradient, rtol=1e-3, atol=1e-4 * size)


def test_loss_is_scale_times_diagonal_plus_lambda_off_diagonal() -> None:
    z1, z2 = embeddings(seed=5, rows=9, columns=4, scale=1.0)
    for options in (BarlowTwinsOptions(), BarlowTwinsOptions(off_diagonal=0.25, scale=3.0)):
        objective = on_embeddings(options)
        loss = total(objective, run(objective, torch.from_numpy(z1), torch.from_numpy(z2))).item()
        assert loss == pytest.approx(plain_loss(z1, z2, options.off_diagonal, options.scale), rel=1e-4)


def test_published_defaults() -> None:
    options = BarlowTwinsOptions()
    assert (options.off_diagonal, options.scale, options.expander_width) == (0.0051, 0.024, 2048)
    weights = on_embeddings().weights
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
    for name, term in run(on_embeddings(), z, z).terms.items():
        assert term.item() == pytest.approx(0, abs=1e-9), name


def test_constant_embedding_costs_its_whole_diagonal_and_has_a_finite_gradient() -> None:
    z = torch.full((8, 4), 0.7, requires_grad=True)
    objective = on_embeddings()
    output = run(objective, z, z)
    assert output.terms["on_diagonal"].item() == pytest.approx(4, abs=1e-5)
    assert output.terms["off_diagonal"].item() == pytest.approx(0, abs=1e-9)
    total(objective, output).backward()
    assert z.grad is not None
    assert torch.isfinite(z.grad).all()


def test_terms_are_computed_in_float32_from_bf16_embeddings_under_autocast() -> None:
    torch.manual_seed(0)
    objective = BarlowTwins(BarlowTwinsOptions(expander_width=8), feature_dim=6)
    features = [(torch.randn(16, 6) + 1).to(torch.bfloat16) for _ in range(2)]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = run(objective, *features)
    z1, z2 = output.embeddings
    assert z1.dtype is torch.bfloat16, "the test is idle if the expander does not run in bf16"
    expected = plain_terms(z1.detach().double().numpy(), z2.detach().double().numpy())
    for name, value in expected.items():
        assert output.terms[name].dtype is torch.float32
        assert output.terms[name].item() == pytest.approx(value, rel=2e-5), name


def test_large_half_precision_embeddings_do_not_overflow() -> None:
    torch.manual_seed(0)
    z1, z2 = (1000 * torch.randn(16, 4)).half(), (1000 * torch.randn(16, 4)).half()
    expected = plain_terms(z1.double().numpy(), z2.double().numpy())
    terms = run(on_embeddings(), z1, z2).terms
    for name, value in expected.items():
        assert terms[name].item() == pytest.approx(value, rel=1e-5), name


def test_expander_is_that_of_the_method() -> None:
    expander = BarlowTwins(BarlowTwinsOptions(expander_width=12), feature_dim=5).expander
    kinds = [nn.Linear, nn.BatchNorm1d, nn.ReLU, nn.Linear, nn.BatchNorm1d, nn.ReLU, nn.Linear]
    assert [isinstance(layer, kind) for layer, kind in zip(expander, kinds, strict=True)] == [True] * 7
    widths = [(layer.in_features, layer.out_features) for layer in expander if isinstance(layer, nn.Linear)]
    assert widths == [(5, 12), (12, 12), (12, 12)]


def test_views_share_one_expander_but_are_standardised_apart() -> None:
    torch.manual_seed(0)
    objective = BarlowTwins(BarlowTwinsOptions(expander_width=8), feature_dim=5)
    x, y = torch.randn(9, 5), torch.randn(9, 5) * 3 + 2
    mixed = run(objective, x, y).embeddings
    assert torch.equal(mixed[0], run(objective, x, x).embeddings[0])
    assert torch.equal(mixed[1], run(objective, y, y).embeddings[0])
    shifted = run(on_embeddings(), x[:, :4], 5 * x[:, :4] - 7).terms
    assert shifted["on_diagonal"].item() == pytest.approx(0, abs=1e-8), "a view's own scale and mean do not count"
