"""VISReg against a plain statement of its equations."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
import pytest
import torch
from stated import SMALL, Array, assert_gradients, differences, embeddings, on_embeddings, run, slices_of, tensors

from ssl_dc.testing import conformance
from ssl_dc_objectives.options import VISRegOptions
from ssl_dc_objectives.visreg import VISReg, scale, shape

test_visreg = conformance("objective", "visreg", settings=SMALL["visreg"])


def deviations(view: Array) -> Array:
    """The biased standard deviation of each column, plus 1e-6."""
    middle = view.mean(axis=0)
    return np.array([math.sqrt(np.mean((view[:, d] - middle[d]) ** 2)) + 1e-6 for d in range(view.shape[1])])


def plain_shape(view: Array, slices: Array, sigma: Array) -> float:
    """Squared distance of the sorted, standardised projections to the Gaussian's quantiles."""
    rows = len(view)
    quantiles = [NormalDist().inv_cdf(k / (rows + 1)) for k in range(1, rows + 1)]
    standard = (view - view.mean(axis=0)) / sigma
    squares = [(x - q) ** 2 for direction in slices.T for x, q in zip(sorted(standard @ direction), quantiles, strict=True)]
    return float(sum(squares) / len(squares))


def plain_terms(views: list[Array], slices: Array, sigmas: list[Array], local_count: int = 0) -> dict[str, float]:
    """The four terms; the deviations that standardise are given, as they get no gradient."""
    global_views = views[: len(views) - local_count]
    middle = sum(global_views) / len(global_views)
    return {
        "invariance": float(np.mean([np.mean((view - middle) ** 2) for view in views])),
        "scale": float(np.mean([np.mean((1 - deviations(view)) ** 2) for view in views])),
        "shape": float(np.mean([plain_shape(view, slices, sigma) for view, sigma in zip(views, sigmas, strict=True)])),
        "center": float(np.mean([np.mean(view.mean(axis=0) ** 2) for view in views])),
    }


def small(**options: float) -> VISReg:
    return on_embeddings(VISReg(VISRegOptions.model_validate({"width": 4, "slices": 3, **options}), feature_dim=4))


@pytest.mark.parametrize(("views", "local_count"), [(2, 0), (3, 0), (2, 1), (5, 3)])
@pytest.mark.parametrize("seed", range(3))
def test_terms_are_those_of_the_equations(seed: int, views: int, local_count: int) -> None:
    objective, some = small(), embeddings(seed, rows=7, views=views)
    expected = plain_terms(some, slices_of(objective), [deviations(view) for view in some], local_count)
    found = run(objective, *tensors(some), local_count=local_count).terms
    assert set(found) == set(expected) == set(objective.weights)
    for name, value in expected.items():
        assert found[name].item() == pytest.approx(value, rel=1e-4), name


@pytest.mark.parametrize("term", ["invariance", "scale", "shape", "center"])
def test_gradient_of_each_term_is_that_of_the_equations_with_the_deviation_held_still(term: str) -> None:
    objective, some = small(), embeddings(seed=4)
    slices, sigmas, leaves = slices_of(objective), [deviations(view) for view in some], tensors(some)
    run(objective, *leaves).terms[term].backward()
    assert_gradients(leaves, differences(lambda moved: plain_terms(moved, slices, sigmas)[term], some))


def test_the_weights_are_1_minus_lambda_and_lambda() -> None:
    weights = small(regularization=0.6).weights
    assert weights == pytest.approx({"invariance": 0.4, "scale": 0.6, "shape": 0.6, "center": 0.6})


def test_the_shape_does_not_depend_on_the_scale() -> None:
    z = torch.stack(tensors(embeddings(seed=5, rows=9))).detach()
    slices = torch.nn.functional.normalize(torch.randn(4, 8, dtype=torch.float64), dim=0)
    assert shape(100 * z + 3, slices).item() == pytest.approx(shape(z, slices).item(), rel=1e-4)


def test_the_gradient_of_the_scale_does_not_vanish_as_embeddings_collapse() -> None:
    z = torch.stack(tensors(embeddings(seed=6))).detach()
    norms = []
    for size in (1e-2, 1e-4):
        shrunk = (size * z).requires_grad_()
        scale(shrunk).backward()
        assert shrunk.grad is not None
        norms.append(shrunk.grad.norm().item())
    assert norms[1] == pytest.approx(norms[0], rel=0.1)
    assert norms[1] > 0.01
