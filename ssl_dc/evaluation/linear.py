"""Linear evaluation: one linear layer on frozen features (method section 6)."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from ssl_dc.data.base import Labels
from ssl_dc.evaluation.knn import FeatureArray
from ssl_dc.seeds import derived_seed

LR = 0.3
MOMENTUM = 0.9
MILESTONES = (0.6, 0.8)
"""Shares of the training after which the learning rate falls to a tenth: epochs 60 and 80 of 100."""


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
