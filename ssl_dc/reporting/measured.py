"""What a report measures of a run: features of some images on every route, computed once, and what follows from them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch

from ssl_dc.bench.curve import CurvePoint, at_trained_budgets, curve_points
from ssl_dc.data.base import ImageSet, Labels, Splits
from ssl_dc.data.prepared import Prepared
from ssl_dc.data.subsets import sample
from ssl_dc.devices import AUTO, device_named
from ssl_dc.errors import DataError, RunError, SslDcError
from ssl_dc.evaluation.cost import CostTable, cost_images, cost_table
from ssl_dc.evaluation.features import Features, check_finite, extract, extract_with, extractor, labels_and_classes
from ssl_dc.evaluation.gate_statistics import GateStatistics, gate_statistics
from ssl_dc.evaluation.neighbours import nearest
from ssl_dc.evaluation.options import CurveOptions
from ssl_dc.evaluation.other_data import moved_data, on_other_data, told_by
from ssl_dc.evaluation.scores import FeatureSets, own_splits
from ssl_dc.model import Model
from ssl_dc.plugins.options import DataOptions
from ssl_dc.routes import Route
from ssl_dc.run_folder import RunFolder
from ssl_dc.trackers.base import Watcher, phase

Projector = Literal["auto", "umap", "pca"]

ALL_IMAGES = ("all images",)
"""The one class that images without labels are in."""


@dataclass(frozen=True)
class ReportOptions:
    """What a report measures, and on how many images.

    Attributes:
        images: How many held-out images are looked at, and how many training images are learned from, at most.
        time: Whether milliseconds are measured on this machine's CPU.
        seconds: How long each run is timed.
        device: Where features are computed.
        data_root: Where the runs' data is now, if it has moved.
        eval_data: Another data set to look at in place of the runs' own.
        projection: How features are laid out in the plane; ``auto`` is UMAP where it is installed.
    """

    images: int = 2000
    time: bool = False
    seconds: float = 10.0
    device: str | torch.device = AUTO
    data_root: str | Path | None = None
    projection: Projector = "auto"
    eval_data: DataOptions | None = None

    @property
    def names_data(self) -> bool:
        """Whether the caller says where the images are."""
        return self.data_root is not None or self.eval_data is not None


@dataclass(frozen=True)
class MeasuredRun:
    """Features of some images of a run, on every route, and what follows from them.

    Attributes:
        model: The run's model, with a gated route for each budget of its training.
        images: The images.
        measured_on: The images, in words.
        labels: Class of each image, (n,); all 0 without labels.
        classes: Names of the classes; empty without labels.
        features: Of the images, on each route; with masks on :attr:`shown_gated`.
        learned_from: How many training images the accuracies are learned from.
        points: What each route reaches and costs; empty without labels.
        why_no_points: Why there are none, in a sentence.
    """

    model: Model
    images: ImageSet
    measured_on: str
    labels: Labels
    classes: tuple[str, ...]
    features: dict[Route, Features]
    learned_from: int
    points: Sequence[CurvePoint]
    why_no_points: str

    @property
    def shown_gated(self) -> Route | None:
        """The gated route that is looked at in detail: the one at the target budget; None without gates."""
        return shown_gated(self.model)

    @property
    def shown_routes(self) -> tuple[Route, ...]:
        """The routes that are looked at in detail: the dense one, and one gated one if there are gates."""
        return (Route.DENSE,) if self.shown_gated is None else (Route.DENSE, self.shown_gated)

    @property
    def ratios(self) -> npt.NDArray[np.float64]:
        """What each image costs on the gated route that is looked at, (n,), as a share of the dense cost.

        Raises:
            RunError: If the model has no gates.
        """
        return self.features[self._gated()].macs / self.model.cost.dense_macs

    def cost(self) -> CostTable:
        """The cost of each layer."""
        route = self.shown_gated
        if route is None:
            return cost_table(self.model.config, self.model.cost, {}, "the dense cost: this network has no gates")
        masks = self.features[route].masks
        return cost_table(self.model.config, self.model.cost, masks, f"the mean over {self.measured_on}, {route}")

    def gates(self) -> GateStatistics:
        """The masks on the gated route that is looked at.

        Raises:
            RunError: If the model has no gates.
        """
        return gate_statistics(self.features[self._gated()].masks, self.labels, self.classes or ALL_IMAGES)

    def neighbours(self, route: Route, queries: Sequence[int], k: int) -> npt.NDArray[np.int64]:
        """The k images nearest to each query on a route, the nearest first: (queries, k) numbers of images."""
        features = torch.from_numpy(self.features[route].features)
        found = nearest(features, features[list(queries)], min(k + 1, len(features)))
        order = found.distances.argsort(dim=1, stable=True)
        numbers = found.indices.gather(1, order).numpy()
        # An image is no neighbour of itself. It may be missing among equals; then the last one is left out.
        kept = [[number for number in row if number != query][:k] for row, query in zip(numbers, queries, strict=True)]
        return np.array(kept, dtype=np.int64)

    def _gated(self) -> Route:
        route = self.shown_gated
        if route is None:
            raise RunError("this model has no gated route")
        return route


def shown_gated(model: Model) -> Route | None:
    """The gated route at the budget nearest to the target; None without gates."""
    if not model.has_gates:
        return None
    target = model.config.budget.target or 1.0
    return min(model.gated_routes, key=lambda route: abs((route.budget or target) - target))  # type: ignore[operator]  # a model's own routes have one budget each


def measure(folder: RunFolder, options: ReportOptions, watchers: Sequence[Watcher] = ()) -> MeasuredRun:
    """Compute the features of a run's images, and what follows from them.

    Args:
        folder: The run's folder.
        options: What is measured.
        watchers: Told of phases.

    Raises:
        ConfigError: If this machine has no such device.
        DataError: If the images cannot be opened.
        RunError: If there is no trained model, or its features are not finite.
    """
    with phase(watchers, "reading the pictures"):
        model = at_trained_budgets(_on_chosen_data(folder.load_model(device_named(options.device)), options))
        with told_by("--eval-data") if options.eval_data else nullcontext():
            splits = own_splits(model)
        there, _ = cost_images(splits)
        images = sample(there, options.images)
        held_out = "held-out images" if len(splits.test) > 0 else "training images (none are held out)"
        of = f" of {len(there):,}" if len(images) < len(there) else ""
        labels, classes = labels_and_classes(images, splits)
    with phase(watchers, f"computing features of {len(images):,} images, on {len(model.routes)} routes"):
        features = _features(model, images)
    other = f" of {options.eval_data.name}" if options.eval_data else ""
    measured_on = f"{len(images):,}{of} {held_out}{other}"
    learned_from, points, why = 0, [], ""
    try:
        with phase(watchers, "accuracy and cost of each route"):
            sets = _feature_sets(model, splits, images, labels, features, options)
            learned_from = len(sets.train_labels)
            curve = CurveOptions(time=options.time, seconds=options.seconds)
            points = list(curve_points(model, sets, curve))
    except SslDcError as error:
        why = str(error)
    return MeasuredRun(model, images, measured_on, labels, classes, features, learned_from, points, why)


def _on_chosen_data(model: Model, options: ReportOptions) -> Model:
    if options.eval_data is not None:
        return on_other_data(model, options.eval_data)
    return moved_data(model, options.data_root)


def _features(model: Model, images: ImageSet) -> dict[Route, Features]:
    """The features on each route. The masks are kept on one of them: they take much memory."""
    kept = shown_gated(model)
    ways = {route: extractor(model, route, keep_masks=route == kept) for route in model.routes}
    prepared = Prepared(images, model.transform)
    found = extract_with(prepared, ways, model.device, workers=model.config.training.workers)
    for route, some in found.items():
        check_finite(some.features, f"the features of the {route} route")
    return found


def _feature_sets(
    model: Model,
    splits: Splits,
    images: ImageSet,
    labels: Labels,
    features: dict[Route, Features],
    options: ReportOptions,
) -> FeatureSets:
    """Features to learn classes from, and those to classify.

    Raises:
        DataError: If there are no labels, or no images are held out.
    """
    learned = sample(splits.evaluation_train, options.images)
    if images.labels is None or learned.labels is None or not splits.classes:
        raise DataError("Accuracy is not shown: these images have no labels.")
    if not len(splits.test):
        raise DataError("Accuracy is not shown: no images are held out.")
    return FeatureSets(
        train=extract(model, learned, model.routes, workers=model.config.training.workers),
        test=features,
        train_labels=learned.labels,
        test_labels=labels,
        classes=len(splits.classes),
        dense_macs=model.cost.dense_macs,
        device=model.device,
    )
