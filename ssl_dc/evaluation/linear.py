"""Linear evaluation: one linear layer on frozen features (method section 6)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ssl_dc.data.base import Labels, Splits
from ssl_dc.errors import ConfigError
from ssl_dc.evaluation.crops import CROP_SCALE, Crops
from ssl_dc.evaluation.features import FeatureArray, extract, extract_prepared, labels_of
from ssl_dc.evaluation.few_labels import label_settings, with_label_share
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

CPU = torch.device("cpu")
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
    if options.crop_scale is not None and not options.augment:
        raise ConfigError("--crop-scale says how --augment crops; without it nothing is cropped")
    splits = with_label_share(splits, options.label_share, options.label_seed)
    seeds, epochs = options.seeds, options.epochs
    if options.augment:
        crop_scale = options.crop_scale or CROP_SCALE
        scored = score_linear_augmented(model, splits, seeds=seeds, epochs=epochs, crop_scale=crop_scale)
    else:
        scored = score_linear(extract_splits(model, splits), seeds=seeds, epochs=epochs)
    return replace(scored, settings={**scored.settings, **label_settings(options.label_share, options.label_seed)})


def score_linear(sets: FeatureSets, *, seeds: int = 5, epochs: int = 100) -> Evaluation:
    """Score each route by linear classifiers of its own, one a seed, on features computed once."""
    routes = list(sets.test)
    train = [torch.from_numpy(sets.train[route].features).to(sets.device) for route in routes]
    labels = torch.from_numpy(sets.train_labels).to(sets.device)
    classifiers = LinearClassifiers(len(routes), seeds, train[0].shape[1], sets.classes, epochs=epochs, device=sets.device)
    for _ in range(epochs):
        classifiers.epoch(train, labels)
    accuracies = classifiers.accuracies([sets.test[route].features for route in routes], sets.test_labels)
    settings = {"seeds": seeds, "epochs": epochs}
    return evaluation("linear", settings, sets, dict(zip(routes, accuracies, strict=True)))


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

    An epoch's crops go through the encoder once, by each route. All classifiers learn from these features, each seed in its
    own order: seeds differ in initial weights and order, not in the crops.

    Args:
        model: The model; it is not changed.
        splits: Images to learn from, and held-out images, which are not augmented.
        seeds: Classifiers of each route.
        epochs: Passes over the training images.
        crop_scale: Least and largest share of an image's area that a crop shows.
        crop_seed: Seed of the crops.

    Raises:
        DataError: If the images cannot be read or have no labels.
    """
    train_labels, test_labels = labels_of(splits.evaluation_train), labels_of(splits.test)
    data, workers, routes, device = model.config.data, model.config.training.workers, model.routes, model.device
    crops = Crops(splits.evaluation_train, data.image_size, data.mean, data.std, scale=crop_scale, seed=crop_seed)
    test = extract(model, splits.test, routes, workers=workers)
    classifiers = LinearClassifiers(
        len(routes), seeds, model.feature_dim, len(splits.classes), epochs=epochs, device=device
    )
    labels = torch.from_numpy(train_labels).to(device)
    for epoch in range(epochs):
        train = extract_prepared(model, crops.of_epoch(epoch), routes, workers=workers)
        classifiers.epoch([torch.from_numpy(train[route].features).to(device) for route in routes], labels)
    accuracies = classifiers.accuracies([test[route].features for route in routes], test_labels)
    scores = {
        route: route_score(some, test[route], model.cost.dense_macs) for route, some in zip(routes, accuracies, strict=True)
    }
    settings = {"seeds": seeds, "epochs": epochs, "augment": f"crops of {crop_scale[0]:g} to {crop_scale[1]:g}, flips"}
    return Evaluation("linear", settings, len(train_labels), len(test_labels), scores)


class LinearClassifiers:
    """Linear layers that learn from features at once, each as if alone: one for each route and seed.

    SGD with momentum 0.9, learning rate 0.3, a tenth of it after 60 % and 80 % of the epochs, no weight decay. A seed
    decides the initial weights and the order of the features, which are the same for all routes.

    Args:
        routes: How many routes there are.
        seeds: How many seeds: 0 and up.
        feature_dim: Width of the features.
        classes: Number of classes.
        epochs: How many epochs there will be; the learning rate depends on it.
        batch_size: Features a step.
        device: Where they learn.
    """

    def __init__(
        self,
        routes: int,
        seeds: int,
        feature_dim: int,
        classes: int,
        *,
        epochs: int = 100,
        batch_size: int = 512,
        device: torch.device = CPU,
    ) -> None:
        self.routes, self.seeds, self.batch_size, self.device = routes, seeds, batch_size, device
        self._milestones = [round(share * epochs) for share in MILESTONES]
        self._epochs_done = 0
        self._generators = [torch.Generator().manual_seed(derived_seed(seed)) for seed in range(seeds)]
        bound = feature_dim**-0.5
        initial = [
            torch.empty(classes, feature_dim).uniform_(-bound, bound, generator=generator) for generator in self._generators
        ]
        # The layers of the first route, then those of the second: (routes * seeds, classes, ...).
        self.weight = torch.stack(initial).to(device).repeat(routes, 1, 1)
        self.bias = torch.zeros(routes * seeds, classes, 1, device=device)
        self._momentum = [torch.zeros_like(self.weight), torch.zeros_like(self.bias)]
        self._batches = torch.empty(routes * seeds * batch_size * feature_dim, device=device)

    @property
    def lr(self) -> float:
        """The learning rate of the epoch that comes next."""
        return LR * 0.1 ** sum(milestone <= self._epochs_done for milestone in self._milestones)

    def epoch(self, features: Sequence[Tensor], labels: Tensor) -> None:
        """Learn once from each feature, in an order of each seed's own.

        Args:
            features: For each route (n, feature_dim) float32, on the device.
            labels: (n,) int64, on the device.
        """
        orders = torch.stack([torch.randperm(len(labels), generator=generator) for generator in self._generators])
        for rows in orders.to(self.device).split(self.batch_size, dim=1):
            self._step(features, labels, rows)
        self._epochs_done += 1

    def _step(self, features: Sequence[Tensor], labels: Tensor, rows: Tensor) -> None:
        """One step of every layer by the gradient of its mean cross entropy, each seed on its own rows (seeds, batch)."""
        count, dim = rows.numel(), self.weight.shape[2]
        gathered = self._batches[: self.routes * count * dim].view(self.routes, count, dim)
        for some, out in zip(features, gathered, strict=True):
            torch.index_select(some, 0, rows.flatten(), out=out)
        x = gathered.view(self.routes * self.seeds, rows.shape[1], dim)
        targets = labels[rows].repeat(self.routes, 1)[:, None]
        # The gradient by the logits: what is predicted, less 1 for the class that is right.
        errors = torch.baddbmm(self.bias, self.weight, x.transpose(1, 2)).softmax(dim=1)
        errors.scatter_add_(1, targets, errors.new_full(targets.shape, -1.0))
        gradients = (torch.bmm(errors, x), errors.sum(dim=2, keepdim=True))
        for parameter, momentum, gradient in zip((self.weight, self.bias), self._momentum, gradients, strict=True):
            momentum.mul_(MOMENTUM).add_(gradient, alpha=1 / rows.shape[1])
            parameter.sub_(momentum, alpha=self.lr)

    def accuracies(self, features: Sequence[FeatureArray], labels: Labels) -> list[list[float]]:
        """Top-1 accuracies in percent, for each route those of its seeds.

        Args:
            features: For each route (n, feature_dim) float32.
            labels: (n,) their classes.
        """
        answers = torch.from_numpy(labels).to(self.device)
        weights, biases = self.weight.split(self.seeds), self.bias.split(self.seeds)
        reached = []
        for some, weight, bias in zip(features, weights, biases, strict=True):
            right = torch.zeros(self.seeds, dtype=torch.int64, device=self.device)
            for x, y in zip(torch.from_numpy(some).split(4096), answers.split(4096), strict=True):
                logits = torch.baddbmm(bias, weight, x.to(self.device).T.expand(self.seeds, -1, -1))
                right += (logits.argmax(dim=1) == y).sum(dim=1)
            reached.append([100 * int(number) / len(labels) for number in right])
        return reached
