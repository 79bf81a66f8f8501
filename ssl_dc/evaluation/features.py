"""Features of a whole set of images, on each route, with what they cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ssl_dc.data.base import ImageSet, Labels
from ssl_dc.data.prepared import Prepared
from ssl_dc.data.workers import loaded, prepare_worker, worker_failures
from ssl_dc.errors import DataError, RunError
from ssl_dc.model import Model
from ssl_dc.routes import Route


@dataclass(frozen=True)
class Features:
    """What one route makes of a set of images.

    Attributes:
        features: (n, feature_dim) float32.
        macs: What each image cost, (n,) float64, in MACs.
        masks: For each gated site the masks (n, channels) bool; empty on the dense route.
    """

    features: npt.NDArray[np.float32]
    macs: npt.NDArray[np.float64]
    masks: dict[str, npt.NDArray[np.bool_]]


def extract(
    model: Model, images: ImageSet, routes: Sequence[Route], *, batch_size: int = 256, workers: int = 0
) -> dict[Route, Features]:
    """The features of all images, not augmented, in evaluation mode, on each of the routes.

    Args:
        model: The model; runs where its weights are.
        images: The images, each decoded once.
        routes: Which routes to take.
        batch_size: Images at a time.
        workers: Processes that prepare images.
    """
    return extract_prepared(model, Prepared(images, model.transform), routes, batch_size=batch_size, workers=workers)


def extract_prepared(
    model: Model, prepared: Dataset[Tensor], routes: Sequence[Route], *, batch_size: int = 256, workers: int = 0
) -> dict[Route, Features]:
    """The features of images that are tensors already, in evaluation mode; each batch goes by all of the routes.

    Args:
        model: The model; runs where its weights are.
        prepared: For each number from 0 an image (3, H, H), normalised as the model's.
        routes: Which routes to take.
        batch_size: Images at a time.
        workers: Processes that prepare images.

    Raises:
        RunError: If features are not finite.
    """
    parts: dict[Route, list[Features]] = {route: [] for route in routes}
    loader = DataLoader(prepared, batch_size=batch_size, num_workers=workers, worker_init_fn=prepare_worker)
    with worker_failures():
        for batch in loaded(loader):
            x = batch.to(model.device, memory_format=torch.channels_last)
            for route in routes:
                parts[route].append(_gated(model, x) if route.gated else _dense(model, x))
    joined = {route: _joined(some) for route, some in parts.items()}
    for route, some in joined.items():
        _check_finite(route, some.features)
    return joined


def _check_finite(route: Route, features: npt.NDArray[np.float32]) -> None:
    """Refuse features that nothing can be learned from.

    Raises:
        RunError: If some are not finite.
    """
    bad = int((~np.isfinite(features).all(axis=1)).sum())
    if bad:
        raise RunError(
            f"the features of the {route} route are not finite, for {bad:,} of {len(features):,} images: the network's"
            " weights are of no use. A lower optimizer.lr often helps."
        )


def labels_of(images: ImageSet) -> Labels:
    """The labels of a set that has them.

    Raises:
        DataError: If it has none.
    """
    if images.labels is None:
        raise DataError("these images have no labels, which an evaluation needs")
    return images.labels


def _dense(model: Model, x: Tensor) -> Features:
    features = model.dense(x)
    return Features(features.float().cpu().numpy(), np.full(len(x), float(model.cost.dense_macs)), {})


def _gated(model: Model, x: Tensor) -> Features:
    out = model.gated(x)
    masks = {site: mask.bool().cpu().numpy() for site, mask in out.masks.items()}
    return Features(out.features.float().cpu().numpy(), out.macs.cpu().numpy(), masks)


def _joined(parts: Sequence[Features]) -> Features:
    return Features(
        np.concatenate([part.features for part in parts]),
        np.concatenate([part.macs for part in parts]),
        {site: np.concatenate([part.masks[site] for part in parts]) for site in parts[0].masks},
    )
