"""SIGReg and the loss of LeJEPA against a plain statement of the paper's equations, with complex numbers."""

from __future__ import annotations

import cmath
import math

import numpy as np
import pytest
import torch
from stated import SMALL, Array, assert_gradients, differences, embeddings, on_embeddings, run, slices_of, tensors

import ssl_dc
from ssl_dc.testing import conformance
from ssl_dc_objectives.options import SIGRegOptions
from ssl_dc_objectives.sigreg import SIGReg, epps_pulley

test_sigreg = conformance("objective", "sigreg", settings=SMALL["sigreg"])


def plain_statistic(sample: Array, points: int = 17, reach: float = 5.0) -> float:
    """Algorithm 1 along one slice: the whole interval, point by point, with complex exponentials."""
    grid = [-reach + 2 * reach * k / (points - 1) for k in range(points)]
    heights = []
    for t in grid:
        empirical = sum(cmath.exp(1j * t * x) for x in sample) / len(sample)
        gaussian = math.exp(-t * t / 2)
        heights.append(abs(empirical - gaussian) ** 2 * gaussian)
    step = 2 * reach / (points - 1)
    return len(sample) * step * (sum(heights) - (heights[0] + heights[-1]) / 2)


def plain_terms(views: list[Array], slices: Array, local_count: int = 0) -> dict[str, float]:
    """Algorithm 2: distance of each view to the mean of the global views, and the statistic over views and slices."""
    global_views = views[: len(views) - local_count]
    middle = sum(global_views) / len(global_views)
    statistics = [plain_statistic(view @ direction) for view in views for direction in slices.T]
    return {
        "prediction": float(np.mean([np.mean((view - middle) ** 2) for view in views])),
        "sigreg": sum(statistics) / len(statistics),
    }


def small(**options: float) -> SIGReg:
    return on_embeddings(SIGReg(SIGRegOptions.model_validate({"width": 4, "slices": 3, **options}), feature_dim=4))


@pytest.mark.parametrize(("views", "local_count"), [(2, 0), (3, 0), (2, 1), (5, 3)])
@pytest.mark.parametrize("seed", range(3))
def test_terms_are_those_of_the_equations(seed: int, views: int, local_count: int) -> None:
    objective, some = small(), embeddings(seed, views=views)
    expected = plain_terms(some, slices_of(objective), local_count)
    found = run(objective, *tensors(some), local_count=local_count).terms
    assert set(found) == set(expected) == set(objective.weights)
    for name, value in expected.items():
        assert found[name].item() == pytest.approx(value, rel=1e-4), name


def test_gradient_is_that_of_the_weighted_equations() -> None:
    objective, some = small(regularization=0.3), embeddings(seed=2, rows=5)
    slices, leaves = slices_of(objective), tensors(some)
    terms = run(objective, *leaves).terms
    sum(objective.weights[name] * term for name, term in terms.items()).backward()

    def loss(moved: list[Array]) -> float:
        stated = plain_terms(moved, slices)
        return 0.7 * stated["prediction"] + 0.3 * stated["sigreg"]

    assert_gradients(leaves, differences(loss, some))


def test_the_weights_are_1_minus_lambda_and_lambda() -> None:
    assert small(regularization=0.05).weights == pytest.approx({"prediction": 0.95, "sigreg": 0.05})


def test_a_collapsed_sample_has_the_statistic_that_the_integral_has_in_closed_form() -> None:
    closed = math.sqrt(2 * math.pi) - 2 * math.sqrt(math.pi) + math.sqrt(2 * math.pi / 3)
    found = epps_pulley(torch.zeros(7, 2, dtype=torch.float64), points=17, reach=5.0)
    np.testing.assert_allclose(found.numpy(), [7 * closed] * 2, rtol=1e-5)


def test_a_gaussian_sample_is_told_from_others_of_the_same_mean_and_variance() -> None:
    generator = torch.Generator().manual_seed(0)
    gaussian = torch.randn(4000, 1, generator=generator)
    two_points = torch.randint(2, (4000, 1), generator=generator) * 2.0 - 1
    uniform = math.sqrt(12) * (torch.rand(4000, 1, generator=generator) - 0.5)
    statistics = [epps_pulley(sample, 17, 5.0).item() for sample in (gaussian, uniform, two_points)]
    assert statistics[0] < 4 < statistics[1] < statistics[2]


def test_slices_are_unit_vectors_and_new_for_each_batch() -> None:
    objective = small(slices=50)
    first = slices_of(objective)
    run(objective, *tensors(embeddings(0)))
    second = slices_of(objective)
    np.testing.assert_allclose(np.linalg.norm(first, axis=0), 1, rtol=1e-6)
    assert first.shape == (4, 50)
    assert np.abs(first - second).max() > 0.1


def test_an_even_number_of_points_is_refused() -> None:
    with pytest.raises(ValueError, match="must be odd"):
        ssl_dc.RunConfig.model_validate({"objective": {"name": "sigreg", "points": 16}})
