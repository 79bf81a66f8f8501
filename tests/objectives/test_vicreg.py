"""VICReg against a plain statement of its equations, and the statistics that watch for collapse."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor, nn

from ssl_dc.objectives.base import EncodedViews, ObjectiveOutput
from ssl_dc.objectives.options import VICRegOptions
from ssl_dc.objectives.statistics import effective_rank, mean_std, off_diagonal
from ssl_dc.objectives.vicreg import VICReg
from ssl_dc.routes import Route

Array = NDArray[np.float64]


def plain_invariance(z1: Array, z2: Array) -> float:
    rows, columns = z1.shape
    total = 0.0
    for i in range(rows):
        for j in range(columns):
            total += (z1[i, j] - z2[i, j]) ** 2
    return total / (rows * columns)


def plain_covariance_entry(z: Array, j: int, k: int) -> float:
    rows = z.shape[0]
    mean_j = sum(z[i, j] for i in range(rows)) / rows
    mean_k = sum(z[i, k] for i in range(rows)) / rows
    return float(sum((z[i, j] - mean_j) * (z[i, k] - mean_k) for i in range(rows)) / (rows - 1))


def plain_variance(z: Array) -> float:
    columns = z.shape[1]
    hinge = 0.0
    for j in range(columns):
        hinge += max(0.0, 1.0 - math.sqrt(plain_covariance_entry(z, j, j) + 1e-4))
    return hinge / columns


def plain_covariance(z: Array) -> float:
    columns = z.shape[1]
    total = 0.0
    for j in range(columns):
        for k in range(columns):
            if j != k:
                total += plain_covariance_entry(z, j, k) ** 2
    return total / columns


def plain_terms(z1: Array, z2: Array) -> dict[str, float]:
    return {
        "invariance": plain_invariance(z1, z2),
        "variance": plain_variance(z1) + plain_variance(z2),
        "covariance": plain_covariance(z1) + plain_covariance(z2),
    }


def plain_loss(z1: Array, z2: Array) -> float:
    terms = plain_terms(z1, z2)
    return 25.0 * terms["invariance"] + 25.0 * terms["variance"] + 1.0 * terms["covariance"]


def finite_differences(z1: Array, z2: Array, step: float = 1e-6) -> tuple[Array, Array]:
    gradients = []
    for view in range(2):
        gradient = np.zeros_like(z1)
        for index in np.ndindex(*z1.shape):
            values = []
            for sign in (1.0, -1.0):
                moved = [z1.copy(), z2.copy()]
                moved[view][index] += sign * step
                values.append(plain_loss(moved[0], moved[1]))
            gradient[index] = (values[0] - values[1]) / (2 * step)
        gradients.append(gradient)
    return gradients[0], gradients[1]


def on_embeddings(options: VICRegOptions | None = None) -> VICReg:
    """The objective with an expander that changes nothing, so that features are embeddings."""
    objective = VICReg(options or VICRegOptions(expander_width=4), feature_dim=4)
    objective.expander = nn.Identity()  # type: ignore[assignment]
    return objective


def run(objective: VICReg, z1: Tensor, z2: Tensor) -> ObjectiveOutput:
    return objective(EncodedViews((z1, z2), (z1, z2), (Route.GATED, Route.DENSE)))


def total(objective: VICReg, output: ObjectiveOutput) -> Tensor:
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
    scale=st.sampled_from([0.01, 0.3, 2.0]),
)
def test_terms_are_those_of_the_equations(seed: int, rows: int, columns: int, scale: float) -> None:
    z1, z2 = embeddings(seed, rows, columns, scale)
    output = run(on_embeddings(), torch.from_numpy(z1), torch.from_numpy(z2))
    expected = plain_terms(z1, z2)
    assert set(output.terms) == set(expected)
    for name, value in expected.items():
        assert output.terms[name].shape == ()
        assert output.terms[name].item() == pytest.approx(value, rel=1e-4, abs=1e-6), name


@pytest.mark.parametrize("scale", [0.01, 0.3, 2.0])
def test_gradient_is_that_of_the_equations(scale: float) -> None:
    z1, z2 = embeddings(seed=3, rows=6, columns=4, scale=scale)
    objective = on_embeddings()
    t1, t2 = torch.from_numpy(z1).requires_grad_(), torch.from_numpy(z2).requires_grad_()
    total(objective, run(objective, t1, t2)).backward()
    expected = finite_differences(z1, z2)
    for tensor, gradient in zip((t1, t2), expected, strict=True):
        assert tensor.grad is not None
        size = np.abs(gradient).max()
        assert size > 0
        np.testing.assert_allclose(tensor.grad.numpy(), gradient, rtol=1e-4, atol=1e-5 * size)


def test_default_weights_are_25_25_1() -> None:
    assert dict(on_embeddings(VICRegOptions()).weights) == {"invariance": 25, "variance": 25, "covariance": 1}


def test_weights_follow_the_options() -> None:
    options = VICRegOptions(invariance=0, variance=3, covariance=7)
    assert dict(on_embeddings(options).weights) == {"invariance": 0, "variance": 3, "covariance": 7}


def test_mean_over_views_halves_the_variance_term_and_nothing_else() -> None:
    z1, z2 = (torch.from_numpy(z) for z in embeddings(seed=1, rows=7, columns=4, scale=0.3))
    default = run(on_embeddings(), z1, z2).terms
    summed = run(on_embeddings(VICRegOptions(variance_over_views="sum")), z1, z2).terms
    halved = run(on_embeddings(VICRegOptions(variance_over_views="mean")), z1, z2).terms
    assert default["variance"].item() == summed["variance"].item() > 0
    assert halved["variance"].item() == pytest.approx(summed["variance"].item() / 2, rel=1e-6)
    for name in ("invariance", "covariance"):
        assert halved[name].item() == summed[name].item()


def test_constant_embedding_costs_the_whole_variance_term_and_has_a_finite_gradient() -> None:
    z = torch.full((8, 4), 0.7, requires_grad=True)
    objective = on_embeddings()
    output = run(objective, z, z)
    assert output.terms["variance"].item() == pytest.approx(2 * (1 - 0.01), abs=1e-6)
    assert output.terms["invariance"].item() == 0
    assert output.terms["covariance"].item() == pytest.approx(0, abs=1e-12)
    total(objective, output).backward()
    assert z.grad is not None
    assert torch.isfinite(z.grad).all()


def test_wide_decorrelated_equal_embeddings_cost_nothing() -> None:
    z = 2 * torch.tensor([[1.0, 1], [1, -1], [-1, 1], [-1, -1]])
    for name, term in run(on_embeddings(), z, z).terms.items():
        assert term.item() == pytest.approx(0, abs=1e-7), name


def test_terms_are_computed_in_float32_from_bf16_embeddings_under_autocast() -> None:
    torch.manual_seed(0)
    objective = VICReg(VICRegOptions(expander_width=8), feature_dim=6)
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


def test_expander_has_the_layers_of_the_method() -> None:
    assert VICRegOptions().expander_width == 2048
    expander = VICReg(VICRegOptions(expander_width=12), feature_dim=5).expander
    kinds = [nn.Linear, nn.BatchNorm1d, nn.ReLU, nn.Linear, nn.BatchNorm1d, nn.ReLU, nn.Linear]
    assert len(expander) == len(kinds)
    assert all(isinstance(layer, kind) for layer, kind in zip(expander, kinds, strict=True))
    widths = [(layer.in_features, layer.out_features) for layer in expander if isinstance(layer, nn.Linear)]
    assert widths == [(5, 12), (12, 12), (12, 12)]


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


def test_views_share_one_expander_but_are_normalised_apart() -> None:
    torch.manual_seed(0)
    objective = VICReg(VICRegOptions(expander_width=8), feature_dim=5)
    x, y = torch.randn(9, 5), torch.randn(9, 5) * 3 + 2
    same = run(objective, x, x).embeddings
    mixed = run(objective, x, y).embeddings
    assert torch.equal(same[0], same[1])
    assert torch.equal(mixed[0], same[0])
    assert torch.equal(mixed[1], run(objective, y, x).embeddings[0])


def test_off_diagonal_is_every_entry_but_the_diagonal() -> None:
    matrix = torch.arange(9.0).reshape(3, 3)
    assert off_diagonal(matrix).tolist() == [1, 2, 3, 5, 6, 7]


def hadamard(size: int) -> Tensor:
    """Orthogonal rows and columns of +1 and -1; every column but the first sums to 0."""
    matrix = torch.ones(1, 1)
    while matrix.shape[0] < size:
        matrix = torch.cat([torch.cat([matrix, matrix], 1), torch.cat([matrix, -matrix], 1)])
    return matrix


def test_effective_rank_counts_equal_directions() -> None:
    for rank in range(1, 8):
        assert effective_rank(hadamard(8)[:, 1 : 1 + rank]).item() == pytest.approx(rank, rel=1e-5)


def test_effective_rank_ignores_the_mean() -> None:
    z = hadamard(8)[:, 1:4]
    assert effective_rank(z + torch.tensor([5.0, -3, 100])).item() == pytest.approx(3, rel=1e-5)


def test_effective_rank_of_fewer_rows_than_dimensions() -> None:
    wide = hadamard(4)[:, 1:] @ hadamard(8)[:3]
    assert wide.shape == (4, 8)
    assert effective_rank(wide).item() == pytest.approx(3, rel=1e-4)


def test_effective_rank_is_the_entropy_of_singular_values_not_of_their_squares() -> None:
    z = hadamard(8)[:, 1:3] * torch.tensor([3.0, 1.0])
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert effective_rank(z).item() == pytest.approx(math.exp(entropy), rel=1e-5)


def test_collapse_shows_as_effective_rank_one_and_no_spread() -> None:
    constant = torch.full((16, 8), 0.3)
    assert effective_rank(constant).item() == pytest.approx(1, abs=1e-3)
    assert mean_std(constant).item() == pytest.approx(0, abs=1e-6)
    line = torch.linspace(-1, 1, 16)[:, None] * torch.arange(1.0, 9)
    assert effective_rank(line).item() == pytest.approx(1, abs=1e-3)


def test_mean_std_averages_the_spread_of_dimensions() -> None:
    z = torch.tensor([[0.0, 10.0], [2.0, 14.0]], requires_grad=True)
    value = mean_std(z)
    assert value.item() == pytest.approx((math.sqrt(2) + math.sqrt(8)) / 2)
    assert not value.requires_grad
    assert mean_std(z.detach().to(torch.bfloat16)).dtype is torch.float32
