"""Linear evaluation: one linear layer on frozen features (method section 6)."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_dc.data.base import Labels
from ssl_dc.evaluation.knn import FeatureArray
from ssl_dc.seeds import derived_seed

LR = 0.3
MOMENTUM = 0.9
MILESTONES = (0.6, 0.8)
"""Shares of the training after which the learning rate falls to a tenth: epochs 60 and 80 of 100."""


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

    SGD with momentum 0.9, learning rate 0.3, a tenth of it after 60 % and 80 % of the epochs, no weight decay.

    Args:
        train: (n, d) features to learn from.
        train_labels: (n,) their classes.
        test: (m, d) features to classify.
        test_labels: (m,) their classes.
        classes: Number of classes.
        seed: Of the initial weights and the order of the features.
        epochs: Passes over the training features.
        batch_size: Features a step.
    """
    generator = torch.Generator().manual_seed(derived_seed(seed))
    x, y = torch.from_numpy(train), torch.from_numpy(train_labels)
    layer = nn.Linear(x.shape[1], classes)
    with torch.no_grad():
        bound = x.shape[1] ** -0.5
        layer.weight.uniform_(-bound, bound, generator=generator)
        layer.bias.zero_()
    optimizer = torch.optim.SGD(layer.parameters(), lr=LR, momentum=MOMENTUM)
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [round(share * epochs) for share in MILESTONES])
    for _ in range(epochs):
        _epoch(layer, optimizer, x, y, batch_size, generator)
        schedule.step()
    with torch.no_grad():
        predicted = layer(torch.from_numpy(test)).argmax(dim=1).numpy()
    return float(100 * np.mean(predicted == test_labels))


def _epoch(
    layer: nn.Linear,
    optimizer: torch.optim.Optimizer,
    x: Tensor,
    y: Tensor,
    batch_size: int,
    generator: torch.Generator,
) -> None:
    for batch in torch.randperm(len(x), generator=generator).split(batch_size):
        optimizer.zero_grad()
        F.cross_entropy(layer(x[batch]), y[batch]).backward()
        optimizer.step()
