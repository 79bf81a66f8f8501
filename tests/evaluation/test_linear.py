"""Linear evaluation: all classifiers at once are each what it is alone, by torch's own layer and optimiser."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

from helpers.plain_linear import PlainClassifier
from ssl_dc.evaluation.features import Features
from ssl_dc.evaluation.linear import LinearClassifiers, score_linear
from ssl_dc.evaluation.scores import FeatureSets
from ssl_dc.routes import Route

Set = tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]


def blobs(n: int, classes: int = 4, spread: float = 0.05, seed: int = 0) -> Set:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, n)
    centres = np.eye(classes, 8)
    return (centres[labels] + spread * rng.normal(size=(n, 8))).astype(np.float32), labels


def learned(
    features: Sequence[npt.NDArray[np.float32]], labels: npt.NDArray[np.int64], *, seeds: int, classes: int = 4, **kind: Any
) -> LinearClassifiers:
    """Classifiers that have learned for all their epochs, on the features of each route."""
    classifiers = LinearClassifiers(len(features), seeds, features[0].shape[1], classes, **kind)
    for _ in range(kind.get("epochs", 100)):
        classifiers.epoch([torch.from_numpy(some) for some in features], torch.from_numpy(labels))
    return classifiers


def accuracy(train: Set, test: Set, **kind: int) -> float:
    """The accuracy of one classifier alone."""
    [[reached]] = learned([train[0]], train[1], seeds=1, **kind).accuracies([test[0]], test[1])
    return reached


@pytest.mark.parametrize("epochs", [1, 2, 3, 5, 30])
def test_each_of_all_classifiers_is_the_one_that_learns_alone(epochs: int) -> None:
    (first, labels), (second, _) = blobs(90, spread=0.7), blobs(90, spread=0.9, seed=3)
    tests, answers = [blobs(2000, spread=0.7, seed=1)[0], blobs(2000, spread=0.9, seed=2)[0]], blobs(2000, seed=1)[1]
    together = learned([first, second], labels, seeds=3, epochs=epochs, batch_size=32)
    reached = together.accuracies(tests, answers)
    for route, features in enumerate((first, second)):
        for seed in range(3):
            alone = PlainClassifier(8, 4, seed=seed, epochs=epochs, batch_size=32)
            for _ in range(epochs):
                alone.epoch(features, labels)
            number = route * 3 + seed
            assert torch.allclose(together.weight[number], alone.layer.weight, rtol=1e-4, atol=1e-5)
            assert torch.allclose(together.bias[number, :, 0], alone.layer.bias, rtol=1e-4, atol=1e-5)
            assert reached[route][seed] == pytest.approx(alone.accuracy(tests[route], answers), abs=0.1)


def test_the_scores_of_both_routes_and_all_seeds_are_those_of_a_plain_loop() -> None:
    def some(seed: int, n: int) -> Features:
        return Features(blobs(n, spread=0.6, seed=seed)[0], np.full(n, 7.0), {})

    train_labels, test_labels = blobs(200)[1], blobs(1000, seed=1)[1]
    routes = Route.BOTH
    train = {route: some(0, 200) for route in routes}
    test = {route: some(1, 1000) for route in routes}
    train[Route.GATED].features[:, 0] = 0  # the gated route knows less
    test[Route.GATED].features[:, 0] = 0
    sets = FeatureSets(train, test, train_labels, test_labels, 4, 10, torch.device("cpu"))
    scores = score_linear(sets, seeds=4, epochs=10)
    for route in routes:
        reached = []
        for seed in range(4):
            alone = PlainClassifier(8, 4, seed=seed, epochs=10)
            for _ in range(10):
                alone.epoch(train[route].features, train_labels)
            reached.append(alone.accuracy(test[route].features, test_labels))
        assert scores.routes[route].top1 == pytest.approx(np.mean(reached), abs=0.05)
        assert scores.routes[route].std == pytest.approx(np.std(reached, ddof=1), abs=0.05)
    assert scores.routes[Route.DENSE].top1 > scores.routes[Route.GATED].top1


def test_separable_classes_are_separated() -> None:
    assert accuracy(blobs(200), blobs(100, seed=1)) == 100


def test_labels_without_meaning_are_not_learned() -> None:
    features, labels = blobs(200, spread=1.0)
    test_features, _ = blobs(2000, spread=1.0, seed=1)
    rng = np.random.default_rng(2)
    answers = rng.integers(0, 4, 2000)
    assert accuracy((features, rng.permutation(labels)), (test_features, answers)) == pytest.approx(25, abs=5)


def test_the_seed_decides_and_nothing_else_does() -> None:
    (features, labels), (test_features, answers) = blobs(64, spread=0.8), blobs(999, spread=0.8, seed=1)
    reached = []
    for number in range(2):
        torch.manual_seed(number)
        classifiers = learned([features], labels, seeds=4, epochs=2, batch_size=16)
        reached += classifiers.accuracies([test_features], answers)
    assert reached[0] == reached[1]
    assert len(set(reached[0])) > 1


def test_every_epoch_sees_each_feature_once_in_another_order_for_each_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Tensor] = []
    plain = LinearClassifiers._step

    def step(self: LinearClassifiers, features: Sequence[Tensor], labels: Tensor, rows: Tensor) -> None:
        seen.append(rows)
        plain(self, features, labels, rows)

    monkeypatch.setattr(LinearClassifiers, "_step", step)
    features, labels = blobs(10)
    learned([features], labels, seeds=2, epochs=2, batch_size=4)
    assert [rows.shape[1] for rows in seen] == [4, 4, 2, 4, 4, 2]
    orders = [tuple(order.tolist()) for epoch in (seen[:3], seen[3:]) for order in torch.cat(epoch, dim=1)]
    assert all(sorted(order) == list(range(10)) for order in orders)
    assert len(set(orders)) == 4


def test_the_learning_rate_falls_as_the_paper_has_it() -> None:
    for epochs, rates in ((100, [0.3] * 60 + [0.03] * 20 + [0.003] * 20), (10, [0.3] * 6 + [0.03] * 2 + [0.003] * 2)):
        classifiers = LinearClassifiers(1, 1, 8, 4, epochs=epochs)
        features, labels = (torch.from_numpy(each) for each in blobs(4))
        found = []
        for _ in range(epochs):
            found.append(classifiers.lr)
            classifiers.epoch([features], labels)
        assert found == pytest.approx(rates)


def test_the_last_epoch_is_reported_not_the_best() -> None:
    train, test = blobs(40), blobs(40, seed=1)
    classifiers = learned([train[0]], train[1], seeds=1, epochs=30)
    assert classifiers.accuracies([test[0]], test[1]) == [[100]]
    classifiers.weight.neg_()
    assert classifiers.accuracies([test[0]], test[1])[0][0] < 50


def test_classes_are_counted_by_the_data_set_not_by_the_labels() -> None:
    train, test = blobs(40, classes=3), blobs(40, classes=3, seed=1)
    assert accuracy(train, test, classes=10) == 100


def test_many_held_out_images_are_counted_in_parts() -> None:
    train, test = blobs(60, spread=0.6), blobs(9000, spread=0.6, seed=1)
    classifiers = learned([train[0]], train[1], seeds=2, epochs=2)
    parts = [classifiers.accuracies([test[0][some]], test[1][some])[0] for some in (slice(0, 4500), slice(4500, None))]
    assert classifiers.accuracies([test[0]], test[1])[0] == pytest.approx(np.mean(parts, axis=0))
