"""Features of a whole set of images, on each route, with their cost."""

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
    """The features of a set of images by one route.

    Attributes:
        features: (n, feature_dim) float32.
        macs: Cost of each image, (n,) float64, in MACs.
        masks: The masks (n, channels), bool, of each gated site by its name. The dense route has none.
    """

    features: npt.NDArray[np.float32]
    macs: npt.NDArray[np.float64]
    masks: dict[str, npt.NDArray[np.bool_]]


def extract(
    model: Model, images: ImageSet, routes: Sequence[Route], *, batch_size: int = 256, workers: int = 0
) -> dict[Route, Features]:
    """The features of all images by each route, in evaluation mode, without augmentation.

    Args:
        model: The model. Features are computed on its device.
        images: The images. Each is decoded once for all routes.
        routes: The routes.
        batch_size: Images that are computed at once.
        workers: Processes that prepare images.
    """
    return extract_prepared(model, Prepared(images, model.transform), routes, batch_size=batch_size, workers=workers)


def extract_prepared(
    model: Model, prepared: Dataset[Tensor], routes: Sequence[Route], *, batch_size: int = 256, workers: int = 0
) -> dict[Route, Features]:
    """The features of prepared images by each route, in evaluation mode.

    Args:
        model: The model. Features are computed on its device.
        prepared: Images (3, H, W) by number, as ``model.transform`` gives them.
        routes: The routes.
        batch_size: Images that are computed at once.
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
    """Refuse features that are not finite.

    Raises:
        RunError: If some are not finite.
    """
    bad = int((~np.isfinite(features).all(axis=1)).sum())
    if bad:
        raise RunError(
            f"the features of {bad:,} of {len(features):,} images are not finite on the {route} route, so the network is of"
            " no use. A lower optimizer.lr often helps."
        )


def labels_of(images: ImageSet) -> Labels:
    """The labels of a set that has them.

    Raises:
        DataError: If it has none.
    """
    if images.labels is None:
        raise DataError("an evaluation needs labels, and these images have none")
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
