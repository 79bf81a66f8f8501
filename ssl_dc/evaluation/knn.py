"""k-nearest-neighbour classification of features (method section 6)."""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt
from sklearn.neighbors import KNeighborsClassifier

from ssl_dc.data.base import Labels
from ssl_dc.evaluation.options import KNNOptions
from ssl_dc.evaluation.scores import Evaluation, FeatureArray, FeatureSets, evaluation, extract_splits, own_splits
from ssl_dc.model import Model

Metric = Literal["euclidean", "cosine"]

TEMPERATURE = 0.07
"""How fast a neighbour's vote falls with its cosine distance."""


def knn(model: Model, options: KNNOptions) -> Evaluation:
    """Run the protocol ``knn`` on the data set of the model's config.

    Raises:
        DataError: If its images cannot be opened or have no labels.
    """
    return score_knn(extract_splits(model, own_splits(model)), k=options.k, metric=options.metric)


def score_knn(sets: FeatureSets, *, k: int = 1, metric: Metric = "euclidean") -> Evaluation:
    """Score each route by k-nearest neighbours; k = 1 and Euclidean distance unless told otherwise."""
    accuracies = {
        route: [
            knn_accuracy(sets.train[route].features, sets.train_labels, test.features, sets.test_labels, k=k, metric=metric)
        ]
        for route, test in sets.test.items()
    }
    return evaluation("knn", {"k": k, "metric": metric}, sets, accuracies)


def knn_accuracy(
    train: FeatureArray,
    train_labels: Labels,
    test: FeatureArray,
    test_labels: Labels,
    *,
    k: int = 1,
    metric: Metric = "euclidean",
) -> float:
    """Top-1 accuracy, in percent, of the k nearest training features.

    Distances are computed in blocks: the whole matrix is never held. Votes count alike for ``euclidean`` (the published
    default, with k = 1) and weigh exp(similarity / 0.07) for ``cosine`` (commonly with k = 20).

    Args:
        train: (n, d) features to learn from.
        train_labels: (n,) their classes.
        test: (m, d) features to classify.
        test_labels: (m,) their classes.
        k: Neighbours asked, at least 1.
        metric: How near is measured.
    """
    weights = "uniform" if metric == "euclidean" else _cosine_votes
    classifier = KNeighborsClassifier(n_neighbors=min(k, len(train)), metric=metric, algorithm="brute", weights=weights)
    classifier.fit(train, train_labels)
    predicted = np.concatenate([classifier.predict(block) for block in np.array_split(test, len(test) // 1024 + 1)])
    return float(100 * np.mean(predicted == test_labels))


def _cosine_votes(distances: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Votes for cosine distances (m, k); relative to the largest possible, so that none overflows."""
    votes: npt.NDArray[np.float64] = np.exp(-distances / TEMPERATURE)
    return votes
