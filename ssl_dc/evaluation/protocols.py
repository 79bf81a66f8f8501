"""Evaluation protocols: what frozen features are worth, on each route of a model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ssl_dc.data.base import Splits
from ssl_dc.evaluation.crops import CROP_SCALE, Crops
from ssl_dc.evaluation.features import Features, extract, extract_prepared, labels_of
from ssl_dc.evaluation.knn import FeatureArray, Metric, knn_accuracy
from ssl_dc.evaluation.linear import LinearClassifier, linear_accuracy
from ssl_dc.evaluation.report import Report, ReportTable
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

    def row(self) -> tuple[str, ...]:
        """The score as part of a row of a table."""
        deviation = "" if self.std is None else f"{self.std:.2f}"
        return (f"{self.top1:.2f}", deviation, f"{self.macs:,.0f}", f"{self.ratio:.4f}")


@dataclass(frozen=True)
class Evaluation(Report):
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

    def as_json(self) -> dict[str, Any]:
        """The evaluation as plain values."""
        return {
            "protocol": self.protocol,
            **self.settings,
            "train_images": self.train_images,
            "test_images": self.test_images,
            "routes": {
                str(route): {"top1": score.top1, "std": score.std, "macs": round(score.macs), "ratio": score.ratio}
                for route, score in self.routes.items()
            },
        }

    def tables(self) -> Sequence[ReportTable]:
        """What each route reaches and costs."""
        settings = ", ".join(f"{name} {value}" for name, value in self.settings.items())
        return [
            ReportTable(
                f"{self.protocol} ({settings}) on {self.test_images:,} held-out images",
                ("route", "top-1 %", "deviation", "MACs an image", "share of dense cost"),
                [(str(route), *score.row()) for route, score in self.routes.items()],
            )
        ]


@dataclass(frozen=True)
class FeatureSets:
    """Features of the two labelled splits, on each route: computed once, for any number of protocols."""

    train: dict[Route, Features]
    test: dict[Route, Features]
    splits: Splits
    dense_macs: int


def extract_splits(model: Model, splits: Splits, *, routes: Sequence[Route] | None = None, workers: int = 0) -> FeatureSets:
    """The features of the labelled splits, on the model's routes or those given.

    Raises:
        DataError: If a split has no labels.
    """
    for images in (splits.evaluation_train, splits.test):
        labels_of(images)  # before hours may be spent on features that nothing can be learned from
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
    """A linear classifier of its own for each route, over several seeds, on features computed once."""
    train_labels, test_labels = labels_of(sets.splits.evaluation_train), labels_of(sets.splits.test)
    classes = len(sets.splits.classes)

    def score(train: FeatureArray, test: FeatureArray) -> list[float]:
        return [
            linear_accuracy(train, train_labels, test, test_labels, classes=classes, seed=seed, epochs=epochs)
            for seed in range(seeds)
        ]

    return _evaluation("linear", {"seeds": seeds, "epochs": epochs}, sets, score)


def linear_augmented(
    model: Model,
    splits: Splits,
    *,
    seeds: int = 5,
    epochs: int = 100,
    crop_scale: tuple[float, float] = CROP_SCALE,
    crop_seed: int = 0,
    workers: int = 0,
) -> Evaluation:
    """As :func:`linear`, but the frozen encoder sees new random crops of the training images in every epoch.

    An epoch's crops go through the encoder once, by both routes, and all seeds' classifiers learn from them, each in an
    order of its own: seeds differ in their initial weights and order, not in the crops.

    Args:
        model: The model, which stays as it is.
        splits: Images to learn from and held out; the latter are not augmented.
        seeds: Classifiers of each route.
        epochs: Passes over the training images.
        crop_scale: Least and largest share of an image's area that a crop shows.
        crop_seed: Of the crops.
        workers: Processes that prepare images.
    """
    train_labels, test_labels = labels_of(splits.evaluation_train), labels_of(splits.test)
    data = model.config.data
    crops = Crops(splits.evaluation_train, data.image_size, data.mean, data.std, scale=crop_scale, seed=crop_seed)
    test = extract(model, splits.test, model.routes, workers=workers)
    classifiers = {
        route: [LinearClassifier(model.feature_dim, len(splits.classes), seed=seed, epochs=epochs) for seed in range(seeds)]
        for route in model.routes
    }
    for epoch in range(epochs):
        train = extract_prepared(model, crops.of_epoch(epoch), model.routes, workers=workers)
        for route, some in classifiers.items():
            for classifier in some:
                classifier.epoch(train[route].features, train_labels)
    routes = {
        route: _route_score(
            [classifier.accuracy(test[route].features, test_labels) for classifier in some],
            float(test[route].macs.mean()),
            model.cost.dense_macs,
        )
        for route, some in classifiers.items()
    }
    settings = {"seeds": seeds, "epochs": epochs, "augment": f"crops of {crop_scale[0]:g} to {crop_scale[1]:g}, flips"}
    return Evaluation("linear", settings, len(splits.evaluation_train), len(splits.test), routes)


def _evaluation(protocol: str, settings: dict[str, Any], sets: FeatureSets, score: Score) -> Evaluation:
    routes = {
        route: _route_score(score(sets.train[route].features, test.features), float(test.macs.mean()), sets.dense_macs)
        for route, test in sets.test.items()
    }
    return Evaluation(protocol, settings, len(sets.splits.evaluation_train), len(sets.splits.test), routes)


def _route_score(accuracies: list[float], macs: float, dense_macs: int) -> RouteScore:
    std = float(np.std(accuracies, ddof=1)) if len(accuracies) > 1 else None
    return RouteScore(float(np.mean(accuracies)), std, macs, macs / dense_macs)
