"""Linear evaluation: one linear layer on frozen features (method section 6)."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from ssl_dc.data.base import Labels, Splits
from ssl_dc.errors import ConfigError
from ssl_dc.evaluation.crops import CROP_SCALE, Crops
from ssl_dc.evaluation.features import FeatureArray, extract, extract_prepared, labels_of
from ssl_dc.evaluation.options import LinearOptions
from ssl_dc.evaluation.scores import (
    Evaluation,
    FeatureSets,
    evaluation,
    extract_splits,
    own_splits,
    route_score,
)
from ssl_dc.model import Model
from ssl_dc.seeds import derived_seed

LR = 0.3
MOMENTUM = 0.9
MILESTONES = (0.6, 0.8)
"""Shares of the training after which the learning rate falls to a tenth: epochs 60 and 80 of 100."""


def linear(model: Model, options: LinearOptions) -> Evaluation:
    """Run the protocol ``linear`` on the data set of the model's config.

    Raises:
        ConfigError: If ``crop_scale`` is given without ``augment``.
        DataError: If its images cannot be opened or have no labels.
    """
    return linear_on(model, own_splits(model), options)


def linear_on(model: Model, splits: Splits, options: LinearOptions) -> Evaluation:
    """Run the protocol ``linear`` on given images; see :func:`linear`."""
    if options.augment:
        return score_linear_augmented(
            model, splits, seeds=options.seeds, epochs=options.epochs, crop_scale=options.crop_scale or CROP_SCALE
        )
    if options.crop_scale is not None:
        raise ConfigError("--crop-scale says how --augment crops; without it nothing is cropped")
    return score_linear(extract_splits(model, splits), seeds=options.seeds, epochs=options.epochs)


def score_linear(sets: FeatureSets, *, seeds: int = 5, epochs: int = 100) -> Evaluation:
    """Score each route by a linear classifier of its own, over several seeds, on features computed once."""
    accuracies = {
        route: [
            linear_accuracy(
                sets.train[route].features,
                sets.train_labels,
                test.features,
                sets.test_labels,
                classes=sets.classes,
                seed=seed,
                epochs=epochs,
            )
            for seed in range(seeds)
        ]
        for route, test in sets.test.items()
    }
    return evaluation("linear", {"seeds": seeds, "epochs": epochs}, sets, accuracies)


def score_linear_augmented(
    model: Model,
    splits: Splits,
    *,
    seeds: int = 5,
    epochs: int = 100,
    crop_scale: tuple[float, float] = CROP_SCALE,
    crop_seed: int = 0,
) -> Evaluation:
    """As :func:`score_linear`, but the frozen encoder sees new random crops of the training images in every epoch.

    An epoch's crops go through the encoder once, by each route. All classifiers learn from these features, each in its own
    order: seeds differ in initial weights and order, not in the crops.

    Args:
        model: The model; it is not changed.
        splits: Images to learn from, and held-out images, which are not augmented.
        seeds: Classifiers of each route.
        epochs: Passes over the training images.
        crop_scale: Least and largest share of an image's area that a crop shows.
        crop_seed: Seed of the crops.
    """
    train_labels, test_labels = labels_of(splits.evaluation_train), labels_of(splits.test)
    data, workers = model.config.data, model.config.training.workers
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
        route: route_score(
            [classifier.accuracy(test[route].features, test_labels) for classifier in some],
            test[route],
            model.cost.dense_macs,
        )
        for route, some in classifiers.items()
    }
    settings = {"seeds": seeds, "epochs": epochs, "augment": f"crops of {crop_scale[0]:g} to {crop_scale[1]:g}, flips"}
    return Evaluation("linear", settings, len(train_labels), len(test_labels), routes)


class LinearClassifier:
    """A linear layer that learns from features, one epoch at a time.

    SGD with momentum 0.9, learning rate 0.3, a tenth of it after 60 % and 80 % of the epochs, no weight decay.

    Args:
        feature_dim: Width of the features.
        classes: Number of classes.
        seed: Of the initial weights and the order of the features.
        epochs: How many there will be: the learning rate follows from it.
        batch_size: Features a step.
    """

    def __init__(self, feature_dim: int, classes: int, *, seed: int = 0, epochs: int = 100, batch_size: int = 512) -> None:
        self.batch_size = batch_size
        self._generator = torch.Generator().manual_seed(derived_seed(seed))
        self.layer = nn.Linear(feature_dim, classes)
        with torch.no_grad():
            bound = feature_dim**-0.5
            self.layer.weight.uniform_(-bound, bound, generator=self._generator)
            self.layer.bias.zero_()
        self._optimizer = torch.optim.SGD(self.layer.parameters(), lr=LR, momentum=MOMENTUM)
        milestones = [round(share * epochs) for share in MILESTONES]
        self._schedule = torch.optim.lr_scheduler.MultiStepLR(self._optimizer, milestones)

    def epoch(self, features: FeatureArray, labels: Labels) -> None:
        """Learn once from each of the features (n, feature_dim) with labels (n,), in an order of this classifier's own."""
        x, y = torch.from_numpy(features), torch.from_numpy(labels)
        for batch in torch.randperm(len(x), generator=self._generator).split(self.batch_size):
            self._optimizer.zero_grad()
            F.cross_entropy(self.layer(x[batch]), y[batch]).backward()
            self._optimizer.step()
        self._schedule.step()

    @torch.no_grad()
    def accuracy(self, features: FeatureArray, labels: Labels) -> float:
        """Top-1 accuracy, in percent, on features (n, feature_dim) with labels (n,)."""
        predicted = self.layer(torch.from_numpy(features)).argmax(dim=1).numpy()
        return float(100 * np.mean(predicted == labels))


def linear_accuracy(
    train: FeatureArray,
    train_labels: Labels,
    test: FeatureArray,
    test_labels: Labels,
    *,
    classes: int,
    seed: int = 0,
    epochs: int = 100,
    batch_size: int = 512,
) -> float:
    """Top-1 accuracy, in percent, of a linear classifier after its last epoch (not its best).

    Args:
        train: (n, d) features to learn from, the same in every epoch.
        train_labels: (n,) their classes.
        test: (m, d) features to classify.
        test_labels: (m,) their classes.
        classes: Number of classes.
        seed: Of the initial weights and the order of the features.
        epochs: Passes over the training features.
        batch_size: Features a step.
    """
    classifier = LinearClassifier(train.shape[1], classes, seed=seed, epochs=epochs, batch_size=batch_size)
    for _ in range(epochs):
        classifier.epoch(train, train_labels)
    return classifier.accuracy(test, test_labels)
