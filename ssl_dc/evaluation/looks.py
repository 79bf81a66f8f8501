"""A look at what an encoder has learned so far, by each route, on images that are not the test images."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import ConcatDataset

from ssl_dc.config import RunConfig
from ssl_dc.data.base import ImageSet, Labels, Splits
from ssl_dc.data.held_out import held_out_indices
from ssl_dc.data.subsets import Indices, sample
from ssl_dc.encoders.base import Encoder
from ssl_dc.errors import DataError
from ssl_dc.evaluation.alpha_req import alpha_req
from ssl_dc.evaluation.crops import Crops
from ssl_dc.evaluation.features import FeatureArray, extract, extract_prepared
from ssl_dc.evaluation.knn import knn_accuracy
from ssl_dc.evaluation.lidar import IMAGES, VIEWS, lidar
from ssl_dc.evaluation.linear import LinearClassifiers
from ssl_dc.evaluation.rankme import EMBEDDINGS, rankme
from ssl_dc.gating.cost import CostModel
from ssl_dc.model import Model
from ssl_dc.routes import Route

CHECKED_SHARE = 0.2
"""Share of the labelled images that kNN and the linear probe are checked on. They learn from the others."""
SPLIT_SEED = 0
PROBE_EPOCHS = 10
"""Epochs of the linear probe: a tenth of the protocol's."""
CROPS = (0.2, 1.0)
"""Least and largest share of an image that the crops for LiDAR show, as in training."""
PREFIX = "watch/"
"""Every metric of a look begins with it."""
BEST_AT_ONE = "alpha_req"
"""Of this measure the value nearest to 1 is the best; of the others, the largest."""


class Look:
    """Looks at an encoder in evaluation mode: kNN-1 and a linear probe, RankMe, LiDAR and alpha-ReQ, for each route.

    At most 25,600 images are taken, balanced over classes and always the same. A fifth of them, drawn once, checks what
    kNN and the probe learn from the others. Without labels, and with a handful of images, these two are left out. Nothing
    here changes the encoder.

    Args:
        config: The run's config, whose preparation the images get.
        cost: What its network costs.
        splits: The images. Those that evaluations learn from are taken, never the test images; where these have no labels,
            the training images.
    """

    def __init__(self, config: RunConfig, cost: CostModel, splits: Splits) -> None:
        self.config, self.cost, self.classes = config, cost, len(splits.classes)
        self.labels, images = _labelled(splits)
        self.images = sample(images, EMBEDDINGS)
        if self.labels is not None:
            self.labels = self.images.labels
        self.checked: Indices = held_out_indices(self.labels, len(self.images), CHECKED_SHARE, SPLIT_SEED)
        if not 0 < len(self.checked) < len(self.images):  # so few that none is left to learn from, or to check
            self.labels = None

    @property
    def has_labels(self) -> bool:
        """Whether kNN and the linear probe can be measured."""
        return self.labels is not None

    def __call__(self, encoder: Encoder) -> dict[str, float]:
        """The measures by name: ``watch/MEASURE/ROUTE``. In a launch all processes call it, and get the same.

        Raises:
            DataError: If an image cannot be read.
            RunError: If features are not finite.
        """
        model = Model(self.config, encoder, self.cost)
        workers = self.config.training.workers
        features = extract(model, self.images, model.routes, workers=workers)
        views = self._views(model, workers)
        return {
            f"{PREFIX}{name}/{'gated' if route.gated else 'dense'}": value
            for route in model.routes
            for name, value in self._measures(features[route].features, views[route])
        }

    def _views(self, model: Model, workers: int) -> dict[Route, FeatureArray]:
        """The features (n, q, d) of q crops of each of n images."""
        data = self.config.data
        crops = Crops(sample(self.images, IMAGES), data.image_size, data.mean, data.std, scale=CROPS)
        views: ConcatDataset[Tensor] = ConcatDataset([crops.of_epoch(view) for view in range(VIEWS)])
        found = extract_prepared(model, views, model.routes, workers=workers)
        return {route: some.features.reshape(VIEWS, len(crops), -1).swapaxes(0, 1) for route, some in found.items()}

    def _measures(self, features: FeatureArray, views: FeatureArray) -> Iterator[tuple[str, float]]:
        if self.labels is not None:
            learned = np.setdiff1d(np.arange(len(features)), self.checked)
            train, test = features[learned], features[self.checked]
            train_labels, test_labels = self.labels[learned], self.labels[self.checked]
            yield "knn", knn_accuracy(train, train_labels, test, test_labels)
            probe = LinearClassifiers(1, 1, features.shape[1], self.classes, epochs=PROBE_EPOCHS)
            for _ in range(PROBE_EPOCHS):
                probe.epoch([torch.from_numpy(train)], torch.from_numpy(train_labels))
            yield "linear", probe.accuracies([test], test_labels)[0][0]
        yield "rankme", rankme(features)
        yield "lidar", lidar(views)
        yield "alpha_req", alpha_req(features)


def is_better(metric: str, value: float, best: float) -> bool:
    """Whether a value of a metric, ``MEASURE/ROUTE``, is better than the best so far. One that is not finite never is."""
    if not np.isfinite(value):
        return False
    if metric.startswith(BEST_AT_ONE):
        return abs(value - 1) < abs(best - 1)
    return value > best


def _labelled(splits: Splits) -> tuple[Labels | None, ImageSet]:
    """The labels and the images that are looked at."""
    try:
        labels = splits.evaluation_train.labels
    except DataError:  # there are no labelled images
        labels = None
    if labels is None or not splits.classes:
        return None, splits.train
    return labels, splits.evaluation_train
