"""The protocols as users call them by name: from a trained model and options to a report.

Each opens the images it needs and hands them to the function that does the work. The catalogue lists them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ssl_dc.assemble import build_data_set
from ssl_dc.data.base import Splits
from ssl_dc.data.subsets import open_splits
from ssl_dc.errors import ConfigError
from ssl_dc.evaluation import protocols
from ssl_dc.evaluation.crops import CROP_SCALE
from ssl_dc.evaluation.features import extract, labels_of
from ssl_dc.evaluation.gate_statistics import GateStatistics, gate_statistics
from ssl_dc.evaluation.knn import Metric
from ssl_dc.evaluation.projection import Projection, project
from ssl_dc.evaluation.protocols import Evaluation, extract_splits
from ssl_dc.evaluation.transfer import target_splits
from ssl_dc.model import Model
from ssl_dc.routes import Route


def knn(model: Model, *, k: int = 1, metric: Metric = "euclidean") -> Evaluation:
    """k-nearest neighbours.

    Args:
        model: The model.
        k: Neighbours asked, at least 1.
        metric: ``euclidean`` or ``cosine``.
    """
    return protocols.knn(extract_splits(model, _own_splits(model), workers=_workers(model)), k=k, metric=metric)


def linear(
    model: Model,
    *,
    seeds: int = 5,
    epochs: int = 100,
    augment: bool = False,
    crop_scale: tuple[float, float] | None = None,
) -> Evaluation:
    """A linear classifier on frozen features.

    Args:
        model: The model.
        seeds: Classifiers of each route, at least 1.
        epochs: Passes over the training images, at least 1.
        augment: Whether the encoder sees new random crops in each epoch; else features are computed once.
        crop_scale: Least and largest share of an image that a crop shows, by default 0.08 to 1; for ``augment``.

    Raises:
        ConfigError: If ``crop_scale`` is given without ``augment``, or is no range of shares.
    """
    return _linear(model, _own_splits(model), seeds=seeds, epochs=epochs, augment=augment, crop_scale=crop_scale)


def transfer(
    model: Model,
    *,
    to: str,
    to_root: str | Path | None = None,
    to_limit: int | None = None,
    to_set: Mapping[str, Any] | None = None,
    seeds: int = 5,
    epochs: int = 100,
    augment: bool = False,
    crop_scale: tuple[float, float] | None = None,
) -> Evaluation:
    """A linear classifier on frozen features of another data set; its images are prepared as the model's own.

    Args:
        model: The model; its own data set is not opened.
        to: The other data set.
        to_root: Folder that holds it.
        to_limit: Use only this many of its training images, the same number of each class.
        to_set: Other options of the data set, such as ``{"image_column": "img"}``.
        seeds: As in :func:`linear`, and so are the rest.
        epochs: See there.
        augment: See there.
        crop_scale: See there.

    Raises:
        ConfigError: As :func:`linear`, or if there is no such data set or option.
        DataError: If the data set's images are not there, or have no labels.
    """
    splits = target_splits(to, root=None if to_root is None else Path(to_root), limit=to_limit, settings=to_set)
    scored = _linear(model, splits, seeds=seeds, epochs=epochs, augment=augment, crop_scale=crop_scale)
    where = {} if to_root is None else {"to_root": str(to_root)}
    return replace(scored, protocol="transfer", settings={"to": to, **where, **scored.settings})


def umap(model: Model, *, points: int = 2000) -> Projection:
    """UMAP of at most ``points`` held-out images."""
    return project(model, _own_splits(model), "umap", points=points, workers=_workers(model))


def tsne(model: Model, *, points: int = 2000) -> Projection:
    """t-SNE of at most ``points`` held-out images."""
    return project(model, _own_splits(model), "tsne", points=points, workers=_workers(model))


def gates(model: Model) -> GateStatistics:
    """Gate statistics over the held-out images.

    Raises:
        ConfigError: If the model has no gates.
    """
    if not model.has_gates:
        raise ConfigError(
            f"protocol gates: this model has no gates, it was trained with gating {model.config.gating.name!r}"
        )
    splits = _own_splits(model)
    labels = labels_of(splits.test)
    gated = extract(model, splits.test, [Route.GATED], workers=_workers(model))[Route.GATED]
    return gate_statistics(gated.masks, labels, splits.classes)


def _linear(
    model: Model, splits: Splits, *, seeds: int, epochs: int, augment: bool, crop_scale: tuple[float, float] | None
) -> Evaluation:
    workers = _workers(model)
    if augment:
        scale = CROP_SCALE if crop_scale is None else crop_scale
        return protocols.linear_augmented(model, splits, seeds=seeds, epochs=epochs, crop_scale=scale, workers=workers)
    if crop_scale is not None:
        raise ConfigError("--crop-scale says how --augment crops; without it nothing is cropped")
    return protocols.linear(extract_splits(model, splits, workers=workers), seeds=seeds, epochs=epochs)


def _own_splits(model: Model) -> Splits:
    """The data set that the model was trained on."""
    return open_splits(build_data_set(model.config))


def _workers(model: Model) -> int:
    return model.config.training.workers
