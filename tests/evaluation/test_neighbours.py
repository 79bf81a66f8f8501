"""Nearest neighbours: those of a plain search in float64, whichever precision finds them, in whatever blocks."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from sklearn.neighbors import NearestNeighbors
from torch import Tensor

from ssl_dc.evaluation import neighbours
from ssl_dc.evaluation.neighbours import Metric, nearest

Rows = npt.NDArray[np.float32]

SEARCHES = {"bfloat16": (True, True), "float32": (False, True), "float64": (False, False)}
"""Which searches are tried before the one in float64: bfloat16, float32."""


@pytest.fixture(params=SEARCHES)
def search(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Each precision, in blocks so small that there are several."""
    bfloat16, float32 = SEARCHES[request.param]
    monkeypatch.setattr(neighbours, "_bfloat16_is_faster", lambda _device: bfloat16)
    monkeypatch.setattr(neighbours, "_keeps_float32", lambda _device: float32)
    monkeypatch.setattr(neighbours, "QUERIES", 7)
    monkeypatch.setattr(neighbours, "FEATURES", 50)
    monkeypatch.setattr(neighbours, "DISTANCES_64", 400)
    monkeypatch.setattr(neighbours, "GATHERED", 100)
    return request.param


def plain_distances(features: Rows, queries: Rows, metric: Metric) -> npt.NDArray[np.float64]:
    """Distances in float64, from differences, as shares of the largest. The row is the query."""
    x, y = features.astype(np.float64), queries.astype(np.float64)
    if metric == "cosine":
        x, y = (rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-15) for rows in (x, y))
        distances = -(y @ x.T)
    else:
        distances = ((y[:, None] - x) ** 2).sum(axis=2)
    shares: npt.NDArray[np.float64] = distances / max(np.abs(distances).max(), 1e-300)
    return shares


def plain_search(features: Rows, queries: Rows, k: int, metric: Metric) -> npt.NDArray[np.int64]:
    """The k nearest; of equally near ones the first."""
    # Equal but for rounding: what differs by less than 1e-12 of the largest is made the same.
    distances = np.round(plain_distances(features, queries, metric), 12)
    return np.sort(np.argsort(distances, axis=1, kind="stable")[:, :k], axis=1)


def found(features: Rows, queries: Rows, k: int, metric: Metric = "euclidean") -> npt.NDArray[np.int64]:
    return nearest(torch.from_numpy(features), torch.from_numpy(queries), k, metric).indices.sort(dim=1).values.numpy()


def normal(seed: int, n: int, d: int) -> Rows:
    return np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32)


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("k", [1, 5])
@settings(deadline=None, max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32 - 1), d=st.integers(1, 40), shift=st.sampled_from([0.0, 3.0, 1000.0]))
@example(seed=11890, d=3, shift=1000.0)
def test_neighbours_are_those_of_a_plain_search(
    search: str, metric: Metric, k: int, seed: int, d: int, shift: float
) -> None:
    features, queries = normal(seed, 180, d) + np.float32(shift), normal(seed + 1, 20, d) + np.float32(shift)
    distances = plain_distances(features, queries, metric)
    of_found, of_nearest = (
        np.sort(np.take_along_axis(distances, numbers, axis=1), axis=1)
        for numbers in (found(features, queries, k, metric), plain_search(features, queries, k, metric))
    )
    np.testing.assert_allclose(of_found, of_nearest, rtol=0, atol=1e-12)  # which of two that are so near is rounding


@pytest.mark.parametrize("k", [1, 4])
@settings(deadline=None, max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32 - 1))
def test_of_equally_near_features_the_first_are_found(search: str, k: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    features, queries = (rng.integers(-2, 3, (n, 4)).astype(np.float32) for n in (200, 15))
    assert np.array_equal(found(features, queries, k), plain_search(features, queries, k, "euclidean"))


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_all_features_are_equal(search: str, metric: Metric) -> None:
    features = np.full((200, 8), 0.5, np.float32)
    assert found(features, features[:3], 2, metric).tolist() == [[0, 1]] * 3


@pytest.mark.parametrize("step", [1e-3, 1e-5, 1e-6])
def test_neighbours_that_a_lower_precision_cannot_tell_apart(search: str, step: float) -> None:
    features = (1 + step * np.arange(160)[::-1, None] * np.ones(16)).astype(np.float32)
    queries = features[[3, 80, 159]]
    assert found(features, queries, 1).tolist() == [[3], [80], [159]]
    assert np.array_equal(found(features, queries, 3), plain_search(features, queries, 3, "euclidean"))


def test_what_has_no_direction_is_at_a_right_angle_to_all(search: str) -> None:
    features = np.array([[-1, 0], [0, 0], [-1, 0.1], *[[-1, -0.1]] * 40], np.float32)
    indices, distances = nearest(torch.from_numpy(features), torch.tensor([[2.0, 0.0], [0.0, 0.0]]), 1, "cosine")
    assert indices.flatten().tolist() == [1, 0]
    assert distances.flatten().tolist() == pytest.approx([1, 1])


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_distances_are_what_they_say(search: str, metric: Metric) -> None:
    features, queries = normal(0, 120, 9), normal(1, 11, 9)
    indices, distances = nearest(torch.from_numpy(features), torch.from_numpy(queries), 3, metric)
    x, y = features.astype(np.float64)[indices.numpy()], queries.astype(np.float64)[:, None]
    if metric == "cosine":
        expected = 1 - (x * y).sum(2) / (np.linalg.norm(x, axis=2) * np.linalg.norm(y, axis=2))
    else:
        expected = ((x - y) ** 2).sum(2) / 2
    assert distances.dtype == torch.float64
    assert np.allclose(distances.numpy(), expected, rtol=1e-9)


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_they_are_those_of_scikit_learn(metric: Metric) -> None:
    features, queries = np.maximum(normal(2, 3000, 64), 0), np.maximum(normal(3, 400, 64), 0)
    theirs = NearestNeighbors(n_neighbors=6, metric=metric, algorithm="brute").fit(features.astype(np.float64))
    expected = np.sort(theirs.kneighbors(queries.astype(np.float64), return_distance=False), axis=1)
    assert np.array_equal(found(features, queries, 6, metric), expected)


def test_the_lowest_precision_is_sure_of_ordinary_features(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "_bfloat16_is_faster", lambda _device: True)
    monkeypatch.setattr(neighbours, "_nearest_in_float64", None)
    told: list[Tensor] = []
    plain = neighbours._Bfloat16.sure

    def sure(self: neighbours._Bfloat16, *bounds: Tensor) -> Tensor:
        told.append(plain(self, *bounds))
        return told[-1]

    monkeypatch.setattr(neighbours._Bfloat16, "sure", sure)
    found(np.maximum(normal(4, 5000, 256), 0), np.maximum(normal(5, 300, 256), 0), 1)
    assert float(torch.cat(told).float().mean()) > 0.95


def test_products_of_lowered_precision_are_noticed() -> None:
    assert neighbours._keeps_float32(torch.device("cpu"))
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        features, queries = normal(6, 2000, 64), normal(7, 50, 64)
        assert np.array_equal(found(features, queries, 3), plain_search(features, queries, 3, "euclidean"))
    finally:
        torch.set_float32_matmul_precision(before)


def test_memory_is_that_of_a_block_not_of_all_distances() -> None:
    """Whatever is made in a search has fewer elements than a block of distances, or than the features themselves."""
    features, queries = torch.from_numpy(normal(8, 40_000, 8)), torch.from_numpy(normal(9, 5_000, 8))
    largest = 0

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            nonlocal largest
            out = func(*args, **(kwargs or {}))
            for each in out if isinstance(out, (tuple, list)) else (out,):
                if isinstance(each, Tensor):
                    largest = max(largest, each.numel())
            return out

    with Watch():
        nearest(features, queries, 1)
    assert largest <= neighbours.QUERIES * neighbours.FEATURES < len(features) * len(queries)
