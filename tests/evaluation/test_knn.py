"""k-nearest neighbours, against a few lines of NumPy and by hand."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssl_dc.evaluation.knn import TEMPERATURE, knn_accuracy
from ssl_dc.evaluation.neighbours import Metric

Features = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]


def brute_force(train: Features, labels: Labels, test: Features, k: int, metric: Metric) -> Labels:
    predicted = []
    for x in test.astype(np.float64):
        if metric == "euclidean":
            distance = np.sqrt(((train - x) ** 2).sum(axis=1))
            votes = np.ones(len(train))
        else:
            distance = 1 - (train @ x) / (np.linalg.norm(train, axis=1) * np.linalg.norm(x))
            votes = np.exp((1 - distance) / 0.07)
        nearest = np.argsort(distance, kind="stable")[:k]
        tally = np.bincount(labels[nearest], weights=votes[nearest], minlength=labels.max() + 1)
        predicted.append(int(tally.argmax()))
    return np.array(predicted, dtype=np.int64)


def draw(seed: int, n: int, m: int, d: int, classes: int) -> tuple[Features, Labels, Features, Labels]:
    rng = np.random.default_rng(seed)
    train, test = rng.normal(size=(n, d)).astype(np.float32), rng.normal(size=(m, d)).astype(np.float32)
    return train, rng.integers(0, classes, n), test, rng.integers(0, classes, m)


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("k", [1, 3, 20])
@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 2**32 - 1), n=st.integers(20, 60), m=st.integers(1, 30), classes=st.integers(2, 5))
def test_accuracy_is_that_of_a_search_by_hand(metric: Metric, k: int, seed: int, n: int, m: int, classes: int) -> None:
    train, labels, test, answers = draw(seed, n, m, 5, classes)
    expected = 100 * np.mean(brute_force(train, labels, test, k, metric) == answers)
    assert knn_accuracy(train, labels, test, answers, k=k, metric=metric) == pytest.approx(expected)


def test_one_euclidean_neighbour_is_the_default() -> None:
    train, labels, test, answers = draw(1, 40, 30, 3, 4)
    assert knn_accuracy(train, labels, test, answers) == knn_accuracy(train, labels, test, answers, k=1, metric="euclidean")


def test_the_set_itself_is_classified_without_error() -> None:
    train, labels, _, _ = draw(2, 200, 1, 8, 7)
    assert knn_accuracy(train, labels, train, labels) == 100
    assert knn_accuracy(train, labels, train, (labels + 1) % 7) == 0


def test_euclidean_sees_length_and_cosine_does_not() -> None:
    train = np.array([[1, 0], [0, 10]], dtype=np.float32)
    labels = np.array([0, 1])
    test = np.array([[0, 1]], dtype=np.float32)
    assert knn_accuracy(train, labels, test, np.array([0])) == 100
    assert knn_accuracy(train, labels, test, np.array([1]), metric="cosine") == 100


def at(cosines: list[float]) -> Features:
    return np.array([[c, np.sqrt(1 - c**2)] for c in cosines], dtype=np.float32)


@pytest.mark.parametrize(("far", "wins"), [(0.95, 1), (0.94, 0)])
def test_cosine_votes_fall_with_a_temperature_of_seven_hundredths(far: float, wins: int) -> None:
    # one neighbour at similarity 1 against two at `far`: exp(1 / 0.07) = 2 exp(far / 0.07) at far = 1 - 0.07 ln 2 = 0.9515
    far += 0.0025
    assert (2 * np.exp((far - 1) / TEMPERATURE) > 1) == bool(wins)
    accuracy = knn_accuracy(at([1.0, far, far]), np.array([0, 1, 1]), at([1.0]), np.array([wins]), k=3, metric="cosine")
    assert accuracy == 100
    assert TEMPERATURE == 0.07


def test_euclidean_votes_count_alike() -> None:
    train = np.array([[0.0], [5.0], [6.0]], dtype=np.float32)
    assert knn_accuracy(train, np.array([0, 1, 1]), np.array([[0.1]], dtype=np.float32), np.array([1]), k=3) == 100


def test_more_neighbours_than_there_are_asks_all() -> None:
    train = np.array([[0.0], [1.0], [2.0]], dtype=np.float32)
    assert knn_accuracy(train, np.array([0, 1, 1]), train, np.array([1, 1, 1]), k=20) == 100


def test_many_test_images_are_classified_in_their_order() -> None:
    train, labels, test, answers = draw(3, 30, 2500, 2, 3)
    expected = 100 * np.mean(brute_force(train, labels, test, 1, "euclidean") == answers)
    assert knn_accuracy(train, labels, test, answers) == pytest.approx(expected)
    assert knn_accuracy(train, labels, test[:1024], answers[:1024]) == pytest.approx(
        100 * np.mean(brute_force(train, labels, test[:1024], 1, "euclidean") == answers[:1024])
    )


def test_classes_need_not_all_be_there() -> None:
    train = np.array([[0.0], [10.0]], dtype=np.float32)
    test = np.array([[1.0], [9.0], [5.1]], dtype=np.float32)
    assert knn_accuracy(train, np.array([7, 3]), test, np.array([7, 3, 5])) == pytest.approx(200 / 3)
