"""Evaluation protocols: what frozen features are worth, on each route of a model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ssl_dc.data.base import Splits
from ssl_dc.evaluation.features import Features, extract, labels_of
from ssl_dc.evaluation.knn import FeatureArray, Metric, knn_accuracy
from ssl_dc.evaluation.linear import linear_accuracy
from ssl_dc.model import Model
from ssl_dc.routes import Route

Score = Callable[[FeatureArray, FeatureArray], list[float]]
"""From training and test features to top-1 accuracies in percent, one a seed."""


@dataclass(frozen=True)
class RouteScore:
    """What one route reaches, on held-out images.

    Attributes:
        top1: Top-1 accuracy in percent, mean over seeds.
        std: Its standard deviation over seeds (with n - 1); None for a single one.
        macs: Mean cost of a test image, in MACs.
        ratio: The same as a share of the dense cost.
    """

    top1: float
    std: float | None
    macs: float
    ratio: float


@dataclass(frozen=True)
class Evaluation:
    """What a protocol says of a model.

    Attributes:
        protocol: Its name.
        settings: How it was run.
        train_images: Images learned from.
        test_images: Images held out.
        routes: The score of each route.
    """

    protocol: str
    settings: dict[str, Any]
    train_images: int
    test_images: int
    routes: dict[Route, RouteScore]


@dataclass(frozen=True)
class FeatureSets:
    """Features of the two labelled splits, on each route: computed once, for any number of protocols."""

    train: dict[Route, Features]
    test: dict[Route, Features]
    splits: Splits
    dense_macs: int


def extract_splits(model: Model, splits: Splits, *, routes: Sequence[Route] | None = None, workers: int = 0) -> FeatureSets:
    """The features of the labelled splits, on the model's routes or those given."""
    routes = model.routes if routes is None else routes
    train = extract(model, splits.evaluation_train, routes, workers=workers)
    test = extract(model, splits.test, routes, workers=workers)
    return FeatureSets(train, test, splits, model.cost.dense_macs)


def knn(sets: FeatureSets, *, k: int = 1, metric: Metric = "euclidean") -> Evaluation:
    """k-nearest neighbours: k = 1 and Euclidean distance unless told otherwise."""
    train_labels, test_labels = labels_of(sets.splits.evaluation_train), labels_of(sets.splits.test)

    def score(train: FeatureArray, test: FeatureArray) -> list[float]:
        return [knn_accuracy(train, train_labels, test, test_labels, k=k, metric=metric)]

    return _evaluation("knn", {"k": k, "metric": metric}, sets, score)


def linear(sets: FeatureSets, *, seeds: int = 5, epochs: int = 100) -> Evaluation:
    """A linear classifier of its own for each route, over several seeds."""
    train_labels, test_labels = labels_of(sets.splits.evaluation_train), labels_of(sets.splits.test)
    classes = len(sets.splits.classes)

    def score(train: FeatureArray, test: FeatureArray) -> list[float]:
        return [
            linear_accuracy(train, train_labels, test, test_labels, classes=classes, seed=seed, epochs=epochs)
            for seed in range(seeds)
        ]

    return _evaluation("linear", {"seeds": seeds, "epochs": epochs}, sets, score)


def _evaluation(protocol: str, settings: dict[str, Any], sets: FeatureSets, score: Score) -> Evaluation:
    routes = {
        route: _route_score(score(sets.train[route].features, test.features), float(test.macs.mean()), sets.dense_macs)
        for route, test in sets.test.items()
    }
    return Evaluation(protocol, settings, len(sets.splits.evaluation_train), len(sets.splits.test), routes)


def _route_score(accuracies: list[float], macs: float, dense_macs: int) -> RouteScore:
    std = float(np.std(accuracies, ddof=1)) if len(accuracies) > 1 else None
    return RouteScore(float(np.mean(accuracies)), std, macs, macs / dense_macs)
