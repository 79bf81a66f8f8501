"""RankMe, LiDAR and alpha-ReQ against independent statements of their formulas in float64."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg
from hypothesis import given
from hypothesis import strategies as st

from ssl_dc.evaluation.alpha_req import alpha_req
from ssl_dc.evaluation.lidar import lidar
from ssl_dc.evaluation.looks import is_better
from ssl_dc.evaluation.rankme import rankme

shapes = st.tuples(st.integers(3, 40), st.integers(2, 30), st.integers(0, 1000))


def drawn(n: int, d: int, seed: int, *more: int) -> np.ndarray:
    generator = np.random.default_rng(seed)
    return (generator.normal(size=(n, *more, d)) @ generator.normal(size=(d, d)) + generator.normal(size=d)).astype(
        np.float32
    )


@given(shapes)
def test_rankme_is_equation_1(shape: tuple[int, int, int]) -> None:
    features = drawn(*shape)
    sigma = scipy.linalg.svdvals(features.astype(np.float64))
    p = sigma / np.abs(sigma).sum() + 1e-7
    assert rankme(features) == pytest.approx(np.exp(-sum(each * np.log(each) for each in p)), rel=1e-4)


def test_rankme_of_known_ranks() -> None:
    assert rankme(np.eye(8, dtype=np.float32)) == pytest.approx(8, rel=1e-4)
    assert rankme(np.outer(np.arange(1, 9), np.ones(5)).astype(np.float32)) == pytest.approx(1, rel=1e-3)
    assert rankme(np.zeros((4, 3), np.float32)) == 0


@given(shapes, st.integers(2, 5))
def test_lidar_is_the_rank_of_the_generalised_eigenvalues(shape: tuple[int, int, int], views: int) -> None:
    """Those of Sb v = l Sw v, which the whitened matrix of the paper shares."""
    x = drawn(*shape, views)
    n, q, d = x.shape
    means = [np.mean([x[i, j].astype(np.float64) for j in range(q)], axis=0) for i in range(n)]
    mean = np.mean(means, axis=0)
    between, within = np.zeros((d, d)), 1e-4 * np.eye(d)
    for i in range(n):
        between += np.outer(means[i] - mean, means[i] - mean) / (n - 1)
        for j in range(q):
            within += np.outer(x[i, j] - means[i], x[i, j] - means[i]) / (n * q)
    values = scipy.linalg.eigh(between, within, eigvals_only=True).clip(min=0)
    p = values / values.sum() + 1e-7
    assert lidar(x) == pytest.approx(np.exp(-(p * np.log(p)).sum()), rel=1e-3)


def test_lidar_of_views_that_tell_their_images_apart_along_two_directions() -> None:
    generator = np.random.default_rng(0)
    images = np.zeros((200, 1, 6))
    images[:, 0, :2] = 100 * generator.normal(size=(200, 2))
    assert lidar((images + generator.normal(size=(200, 10, 6))).astype(np.float32)) == pytest.approx(2, abs=0.1)


@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.0])
def test_alpha_req_finds_the_exponent(alpha: float) -> None:
    generator = np.random.default_rng(0)
    basis = np.linalg.qr(generator.normal(size=(400, 120)))[0]
    basis = np.linalg.qr(basis - basis.mean(axis=0))[0]  # centred, so that its covariance is diagonal
    spectrum = np.arange(1, 121) ** -alpha
    assert alpha_req((basis * np.sqrt(spectrum)).astype(np.float32)) == pytest.approx(alpha, abs=2e-3)


def test_alpha_req_is_the_weighted_fit_of_the_papers_code() -> None:
    features = drawn(300, 150, 3)
    values = np.linalg.eigvalsh(np.cov(features.astype(np.float64), rowvar=False))[::-1]
    trange = np.arange(10, 100)
    y = np.log(np.abs(values))[trange][:, None]
    x = np.concatenate((-np.log(trange + 1)[:, None], np.ones((len(trange), 1))), axis=1)
    w = (1.0 / (trange + 1))[:, None]
    slope = np.linalg.solve(x.T @ (x * w), (w * x).T @ y).flatten()[0]
    assert alpha_req(features) == pytest.approx(slope, rel=1e-9)


def test_alpha_req_of_one_direction_is_none() -> None:
    assert np.isnan(alpha_req(np.outer(np.arange(5), np.ones(3)).astype(np.float32)))


def test_which_value_is_better() -> None:
    assert is_better("knn/dense", 51, 50)
    assert not is_better("knn/dense", 50, 50)
    assert is_better("alpha_req/gated", 1.1, 0.5)
    assert not is_better("rankme/dense", float("nan"), 0)
