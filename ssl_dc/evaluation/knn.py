"""k-nearest-neighbour classification of features (method section 6)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ssl_dc.data.base import Labels
from ssl_dc.distributed import failing_together, gather_rows, rank, world_size
from ssl_dc.evaluation.features import FeatureArray
from ssl_dc.evaluation.neighbours import Metric, Neighbours, nearest
from ssl_dc.evaluation.options import KNNOptions
from ssl_dc.evaluation.scores import Evaluation, FeatureSets, evaluation, extract_splits, own_splits
from ssl_dc.model import Model

TEMPERATURE = 0.07
"""How fast a neighbour's vote falls with its cosine distance."""

CPU = torch.device("cpu")


def knn(model: Model, options: KNNOptions) -> Evaluation:
    """Run the protocol ``knn`` on the data set of the model's config.

    Raises:
        DataError: If its images cannot be opened or have no labels.
    """
    return score_knn(extract_splits(model, own_splits(model)), k=options.k, metric=options.metric)


def score_knn(sets: FeatureSets, *, k: int = 1, metric: Metric = "euclidean") -> Evaluation:
    """Score each route by k-nearest neighbours; k = 1 and Euclidean distance unless told otherwise."""
    accuracies = {}
    for route, test in sets.test.items():
        train = sets.train[route].features
        predicted = shared_predictions(train, sets.train_labels, test.features, k=k, metric=metric, device=sets.device)
        accuracies[route] = [percent_correct(predicted, sets.test_labels)]
    return evaluation("knn", {"k": k, "metric": metric}, sets, accuracies)


def knn_accuracy(
    train: FeatureArray,
    train_labels: Labels,
    test: FeatureArray,
    test_labels: Labels,
    *,
    k: int = 1,
    metric: Metric = "euclidean",
    device: torch.device = CPU,
) -> float:
    """Top-1 accuracy, in percent, of :func:`knn_predictions`."""
    return percent_correct(knn_predictions(train, train_labels, test, k=k, metric=metric, device=device), test_labels)


def percent_correct(predicted: Labels, labels: Labels) -> float:
    """The share of right predictions, in percent."""
    return float(100 * np.mean(predicted == labels))


def shared_predictions(
    train: FeatureArray, train_labels: Labels, test: FeatureArray, *, k: int, metric: Metric, device: torch.device
) -> Labels:
    """As :func:`knn_predictions`, each process of a launch doing a part; all of them call it, and each gets the whole."""
    rows = np.array_split(np.arange(len(test)), world_size())
    with failing_together():
        own = knn_predictions(train, train_labels, test[rows[rank()]], k=k, metric=metric, device=device)
    return gather_rows(torch.from_numpy(own), [numbers.tolist() for numbers in rows]).numpy()


def knn_predictions(
    train: FeatureArray,
    train_labels: Labels,
    test: FeatureArray,
    *,
    k: int = 1,
    metric: Metric = "euclidean",
    device: torch.device = CPU,
) -> Labels:
    """The class that the k nearest training features vote for.

    Votes count alike for ``euclidean`` (the published default, with k = 1) and weigh exp(similarity / 0.07) for ``cosine``
    (commonly with k = 20). Of training features equally near, the first ones vote; of classes with equally many votes, the
    one with the smallest number wins.

    Args:
        train: (n, d) features to learn from.
        train_labels: (n,) their classes.
        test: (m, d) features to classify.
        k: Neighbours that vote, at least 1; no more than there are.
        metric: How near is measured.
        device: Where to compute.

    Returns:
        (m,) int64.
    """
    if not len(test):
        return np.empty(0, np.int64)
    features, queries = (torch.from_numpy(each).to(device) for each in (train, test))
    found = nearest(features, queries, min(k, len(train)), metric)
    classes, numbers = np.unique(train_labels, return_inverse=True)
    winners = _winners(found, torch.from_numpy(numbers), len(classes), metric)
    predicted: Labels = classes[winners.cpu().numpy()]
    return predicted


def leave_one_out(features: FeatureArray, labels: Labels, device: torch.device = CPU) -> float:
    """Share of features whose nearest other feature has their class, in percent: kNN-1 of a set among itself.

    Args:
        features: (n, d), n at least 2.
        labels: (n,) their classes.
        device: Where to compute.
    """
    x = torch.from_numpy(features).to(device)
    near = nearest(x, x, 2).indices.cpu().numpy()
    itself = near[:, 0] == np.arange(len(near))
    return percent_correct(labels[np.where(itself, near[:, 1], near[:, 0])], labels)


def _winners(found: Neighbours, labels: Tensor, classes: int, metric: Metric) -> Tensor:
    """The class with most votes, (m,), some rows at a time."""
    voters = labels.to(found.indices.device)[found.indices]
    # Weights are relative to the largest there can be, so that none overflows.
    alike = metric == "euclidean"
    weights = torch.ones_like(found.distances) if alike else torch.exp(-found.distances / TEMPERATURE)
    winners = []
    for some, votes in zip(voters.split(1024), weights.split(1024), strict=True):
        winners.append(votes.new_zeros(len(some), classes).scatter_add_(1, some, votes).argmax(dim=1))
    return torch.cat(winners)
