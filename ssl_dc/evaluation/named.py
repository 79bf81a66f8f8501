"""The protocols as users call them by name: from a trained model and options to a report.

Each opens the images it needs and hands them to the function that does the work.
"""

from __future__ import annotations

from dataclasses import replace

from ssl_dc.assemble import build_data_set
from ssl_dc.data.base import Splits
from ssl_dc.data.subsets import open_splits
from ssl_dc.errors import ConfigError
from ssl_dc.evaluation import protocols
from ssl_dc.evaluation.crops import CROP_SCALE
from ssl_dc.evaluation.features import extract, labels_of
from ssl_dc.evaluation.gate_statistics import GateStatistics, gate_statistics
from ssl_dc.evaluation.options import (
    GatesOptions,
    KNNOptions,
    LinearOptions,
    ProjectionOptions,
    TransferOptions,
)
from ssl_dc.evaluation.projection import Projection, project
from ssl_dc.evaluation.protocols import Evaluation, extract_splits
from ssl_dc.evaluation.transfer import target_splits
from ssl_dc.model import Model
from ssl_dc.routes import Route


def knn(model: Model, options: KNNOptions) -> Evaluation:
    """k-nearest neighbours."""
    sets = extract_splits(model, _own_splits(model), workers=_workers(model))
    return protocols.knn(sets, k=options.k, metric=options.metric)


def linear(model: Model, options: LinearOptions) -> Evaluation:
    """A linear classifier on frozen features.

    Raises:
        ConfigError: If ``crop_scale`` is given without ``augment``.
    """
    return _linear(model, _own_splits(model), options)


def transfer(model: Model, options: TransferOptions) -> Evaluation:
    """A linear classifier on frozen features of another data set; its images are prepared as the model's own.

    The model's own data set is not opened.

    Raises:
        ConfigError: As :func:`linear`, or if there is no such data set or option.
        DataError: If the data set's images are not there, or have no labels.
    """
    splits = target_splits(options.to, root=options.to_root, limit=options.to_limit, settings=options.to_set)
    scored = _linear(model, splits, options)
    where = {} if options.to_root is None else {"to_root": str(options.to_root)}
    return replace(scored, protocol="transfer", settings={"to": options.to, **where, **scored.settings})


def umap(model: Model, options: ProjectionOptions) -> Projection:
    """UMAP of held-out images."""
    return project(model, _own_splits(model), "umap", points=options.points, workers=_workers(model))


def tsne(model: Model, options: ProjectionOptions) -> Projection:
    """t-SNE of held-out images."""
    return project(model, _own_splits(model), "tsne", points=options.points, workers=_workers(model))


def gates(model: Model, options: GatesOptions) -> GateStatistics:  # noqa: ARG001  # a protocol's signature
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


def _linear(model: Model, splits: Splits, options: LinearOptions) -> Evaluation:
    workers = _workers(model)
    if options.augment:
        return protocols.linear_augmented(
            model,
            splits,
            seeds=options.seeds,
            epochs=options.epochs,
            crop_scale=options.crop_scale or CROP_SCALE,
            workers=workers,
        )
    if options.crop_scale is not None:
        raise ConfigError("--crop-scale says how --augment crops; without it nothing is cropped")
    return protocols.linear(extract_splits(model, splits, workers=workers), seeds=options.seeds, epochs=options.epochs)


def _own_splits(model: Model) -> Splits:
    """The data set that the model was trained on."""
    return open_splits(build_data_set(model.config))


def _workers(model: Model) -> int:
    return model.config.training.workers
