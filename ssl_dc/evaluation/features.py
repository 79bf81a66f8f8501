"""Features of a whole set of images, with what they cost.

The processes of a launch share the work: each takes every n-th batch, and all get the whole. Batches are those of one
process, so the result is the same to the bit.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ssl_dc.data.base import ImageSet, Labels, Splits
from ssl_dc.data.prepared import Prepared
from ssl_dc.data.workers import loaded, prepare_worker, worker_failures
from ssl_dc.distributed import failing_together, gather_rows, rank, world_size
from ssl_dc.errors import DataError, RunError
from ssl_dc.model import Model
from ssl_dc.routes import Budget, Route

FeatureArray = npt.NDArray[np.float32]
"""Features (n, d)."""

BATCH = 256
"""Images at a time."""

K = TypeVar("K", bound=Hashable)
Array = TypeVar("Array", bound=npt.NDArray[Any])


@dataclass(frozen=True)
class Features:
    """What one route makes of a set of images.

    Attributes:
        features: (n, feature_dim) float32.
        macs: Cost of each image, (n,) float64, in MACs.
        masks: The masks (n, channels) bool of each gated site, where they are asked for; empty on the dense route.
    """

    features: FeatureArray
    macs: npt.NDArray[np.float64]
    masks: dict[str, npt.NDArray[np.bool_]]


Extractor = Callable[[Tensor], Features]
"""Gives the features of a batch of images (N, 3, H, H), normalised."""


def extract(
    model: Model,
    images: ImageSet,
    routes: Sequence[Route],
    *,
    batch_size: int = BATCH,
    workers: int = 0,
    keep_masks: bool = False,
) -> dict[Route, Features]:
    """Take the features of all images, not augmented, in evaluation mode, by each of the routes.

    In a launch of several processes all of them call it, and each gets the whole.

    Args:
        model: The model; it runs where its weights are.
        images: The images; each is decoded once.
        routes: The routes to take.
        batch_size: Images at a time.
        workers: Processes that prepare images.
        keep_masks: Whether the masks of the gated route are wanted. They take about as much memory as the features.

    Raises:
        DataError: If an image cannot be read, or there are none.
        RunError: If features are not finite, or another process has failed.
    """
    prepared = Prepared(images, model.transform)
    return extract_prepared(model, prepared, routes, batch_size=batch_size, workers=workers, keep_masks=keep_masks)


def extract_prepared(
    model: Model,
    prepared: Dataset[Tensor],
    routes: Sequence[Route],
    *,
    batch_size: int = BATCH,
    workers: int = 0,
    keep_masks: bool = False,
) -> dict[Route, Features]:
    """As :func:`extract`, of images that are tensors already.

    Args:
        model: The model; it runs where its weights are.
        prepared: For each number from 0 an image (3, H, H), normalised as the model's images are.
        routes: The routes to take.
        batch_size: Images at a time.
        workers: Processes that prepare images.
        keep_masks: Whether the masks of the gated route are wanted.

    Raises:
        DataError: As :func:`extract`.
        RunError: As :func:`extract`.
    """
    found = extract_with(
        prepared,
        {route: extractor(model, route, keep_masks=keep_masks) for route in routes},
        model.device,
        batch_size=batch_size,
        workers=workers,
    )
    for route, some in found.items():
        check_finite(some.features, f"the features of the {route} route")
    return found


def extractor(model: Model, route: Route, *, keep_masks: bool = False) -> Extractor:
    """What takes the features of a batch by a route of a model."""
    return partial(_gated, model, route.budget, keep_masks) if route.gated else partial(_dense, model)


def extract_with(
    prepared: Dataset[Tensor],
    extractors: Mapping[K, Extractor],
    device: torch.device,
    *,
    batch_size: int = BATCH,
    workers: int = 0,
) -> dict[K, Features]:
    """Take several kinds of features in one pass over the images; see :func:`extract` about processes.

    Args:
        prepared: For each number from 0 an image (3, H, H).
        extractors: What takes the features, under any names.
        device: Where the extractors want images.
        batch_size: Images at a time.
        workers: Processes that prepare images.

    Raises:
        DataError: If an image cannot be read, or there are none.
        RunError: If another process has failed.
    """
    numbers = range(len(prepared))  # type: ignore[arg-type]  # torch's Dataset does not say that it has a length
    batches = [list(numbers[start : start + batch_size]) for start in numbers[::batch_size]]
    if not batches:
        raise DataError("there are no images to take features of")
    # Of fewer batches than processes, each process takes all: none has to wait, and none has nothing.
    shared = world_size() if len(batches) >= world_size() else 1
    shares = [batches[first::shared] for first in range(shared)]
    own = shares[rank() % shared]
    parts: dict[K, list[Features]] = {name: [] for name in extractors}
    loader = DataLoader(prepared, batch_sampler=own, num_workers=workers, worker_init_fn=prepare_worker)
    with failing_together(), worker_failures(), closing(loaded(loader)) as prepared_batches:
        for batch in prepared_batches:
            x = batch.to(device, memory_format=torch.channels_last)
            for name, take in extractors.items():
                parts[name].append(take(x))
    rows = [[number for batch in share for number in batch] for share in shares]
    return {name: _gathered(_joined(some), rows) for name, some in parts.items()}


SHOWN = 3
"""How many images whose features are not finite a message names."""


def check_finite(features: FeatureArray, what: str, name: Callable[[int], str] | None = None) -> None:
    """Refuse features that nothing can be learned from.

    Args:
        features: (n, d).
        what: What they are, for the message.
        name: What an image is called, by its number among these; without it the message names none.

    Raises:
        RunError: If some are not finite.
    """
    bad = np.flatnonzero(~np.isfinite(features).all(axis=1)).tolist()
    if bad:
        more = ", ..." if len(bad) > SHOWN else ""
        named = "" if name is None else f" ({', '.join(map(name, bad[:SHOWN]))}{more})"
        raise RunError(
            f"{what} are not finite, for {len(bad):,} of {len(features):,} images{named}: the network's weights are of no"
            " use. A lower optimizer.lr often helps."
        )


def labels_of(images: ImageSet) -> Labels:
    """The labels of a set that has them.

    Raises:
        DataError: If it has none.
    """
    if images.labels is None:
        raise DataError(
            "these images have no labels, and this protocol learns from labels; evaluate on a labelled data set:"
            " --eval-data NAME --eval-data-root FOLDER"
        )
    return images.labels


def labels_and_classes(images: ImageSet, splits: Splits) -> tuple[Labels, tuple[str, ...]]:
    """The labels of images and the names of the classes; without labels, all 0 and no names."""
    if images.labels is None or not splits.classes:
        return np.zeros(len(images), np.int64), ()
    return images.labels, splits.classes


def _dense(model: Model, x: Tensor) -> Features:
    features = model.dense(x)
    return Features(features.float().cpu().numpy(), np.full(len(x), float(model.cost.dense_macs)), {})


def _gated(model: Model, budget: Budget, keep_masks: bool, x: Tensor) -> Features:
    out = model.gated(x, budget)
    masks = {site: mask.bool().cpu().numpy() for site, mask in out.masks.items()} if keep_masks else {}
    return Features(out.features.float().cpu().numpy(), out.macs.cpu().numpy(), masks)


def _joined(parts: Sequence[Features]) -> Features:
    return Features(
        np.concatenate([part.features for part in parts]),
        np.concatenate([part.macs for part in parts]),
        {site: np.concatenate([part.masks[site] for part in parts]) for site in parts[0].masks},
    )


def _gathered(own: Features, rows: Sequence[Sequence[int]]) -> Features:
    """The features of all images from those that each process took.

    Args:
        own: What this process took.
        rows: The numbers of the images that each process took.
    """
    if len(rows) == 1:
        return own

    def whole(values: Array) -> Array:
        return cast(Array, gather_rows(torch.from_numpy(values), rows).numpy())

    return Features(whole(own.features), whole(own.macs), {site: whole(mask) for site, mask in own.masks.items()})
