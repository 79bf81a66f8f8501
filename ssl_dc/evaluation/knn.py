"""k-nearest-neighbour classification of features (method section 6)."""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt
from sklearn.neighbors import KNeighborsClassifier

from ssl_dc.data.base import Labels

Metric = Literal["euclidean", "cosine"]
FeatureArray = npt.NDArray[np.float32]

TEMPERATURE = 0.07
"""How fast a neighbour's vote falls with its cosine distance."""


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
