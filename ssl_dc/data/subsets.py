"""Using part of a data set, always the same part."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from ssl_dc.data.base import Blocks, DataSet, ImageSet, Labels, Splits
from ssl_dc.data.shrunk import Shrunk
from ssl_dc.data.unreadable import Readable
from ssl_dc.errors import DataError
from ssl_dc.plugins.options import where_else

if TYPE_CHECKING:
    from PIL.Image import Image

Indices = npt.NDArray[np.int64]

SUBSET_SEED = 0
"""Draws the images that a limit keeps. Not the run's seed: runs that differ in it must see the same data."""


class Subset(ImageSet):
    """Some images of a set.

    Args:
        images: The set.
        indices: Numbers of the images to keep, (n,) int64.
    """

    def __init__(self, images: ImageSet, indices: Indices) -> None:
        self._images = images
        self._indices = indices

    @property
    def labels(self) -> Labels | None:
        """Class of each kept image, (n,) int64, or None."""
        labels = self._images.labels
        return None if labels is None else labels[self._indices]

    def __len__(self) -> int:
        return len(self._indices)

    def prepare(self) -> None:
        """Let the set get ready."""
        self._images.prepare()

    def image(self, index: int) -> Image:
        """The kept image of that number.

        Raises:
            DataError: If it cannot be read.
        """
        return self._images.image(int(self._indices[index]))

    def name(self, index: int) -> str:
        """What the set calls the kept image of that number."""
        return self._images.name(int(self._indices[index]))

    def size(self, index: int) -> tuple[int, int]:
        """Width and height of the kept image of that number."""
        return self._images.size(int(self._indices[index]))

    def blocks(self) -> Blocks | None:
        """The blocks of the set, with the images that are kept of each."""
        blocks = self._images.blocks()
        if blocks is None or (np.diff(self._indices) <= 0).any():
            return None
        starts = np.unique(np.searchsorted(self._indices, blocks.starts))
        return Blocks(starts[starts < len(self)].astype(np.int64), blocks.together)

    def fingerprint(self) -> str:
        """Of the set, and of which images are kept."""
        return hashlib.sha256(self._images.fingerprint().encode() + self._indices.tobytes()).hexdigest()


def balanced_indices(labels: Labels | None, n_total: int, limit: int, seed: int) -> Indices:
    """Choose images at random, the same number of each class.

    Counts of the classes differ by at most 1; a class that has fewer images gives all, and the others make up
    for it.

    Args:
        labels: Class of each image, (n_total,) int64; None takes images without regard to class.
        n_total: How many images there are.
        limit: How many to choose, at least 0.
        seed: Of the draw, at least 0.

    Returns:
        (min(limit, n_total),) int64, ascending.
    """
    if limit >= n_total:
        return np.arange(n_total, dtype=np.int64)
    shuffled = np.random.default_rng(seed).permutation(n_total).astype(np.int64)
    if labels is not None:
        # Dealt in rounds: every class's first image of the shuffle, then every class's second, and so on.
        shuffled = shuffled[np.argsort(occurrence(labels[shuffled]), kind="stable")]
    return np.sort(shuffled[:limit])


def occurrence(labels: Labels) -> Indices:
    """For each place, how many places before it have the same label."""
    by_class = np.argsort(labels, kind="stable")
    _, starts, counts = np.unique(labels[by_class], return_index=True, return_counts=True)
    places = np.empty(len(labels), dtype=np.int64)
    places[by_class] = np.arange(len(labels)) - np.repeat(starts, counts)
    return places


def open_whole(data_set: DataSet) -> Splits:
    """Open a data set, as it is.

    Raises:
        DataError: If it cannot be opened. If it is the data of a run, the message names each place where it was looked for.
    """
    try:
        return data_set.open()
    except DataError as error:
        raise DataError(f"{error}{where_else(data_set.options)}") from error


def open_splits(data_set: DataSet) -> Splits:
    """Open a data set and take the part of it that its options' ``limit`` and ``test_limit`` ask for.

    Where images that cannot be read are to be skipped, others stand in for them
    (:class:`ssl_dc.data.unreadable.Readable`).

    Where pre-training and evaluation learn from the same images, they still do.

    Raises:
        DataError: If the data set cannot be opened.
    """
    options = data_set.options
    splits = open_whole(data_set)
    rule = options.bad_images

    def part(images: ImageSet, limit: int | None) -> ImageSet:
        return _readable(sample(images, limit), rule)

    train = part(splits.train, options.limit)
    same = splits.evaluation_train is splits.train and options.shrink is None
    if options.shrink is not None:  # evaluation sees every image as it is
        train = _readable(Shrunk(sample(splits.train, options.limit), options.shrink), rule)
    return splits._replace(
        train=train,
        evaluation_train=train if same else part(splits.evaluation_train, options.limit),
        test=part(splits.test, options.test_limit),
        calibration=None if splits.calibration is None else part(splits.calibration, None),
    )


def _readable(images: ImageSet, rule: Literal["stop", "skip"] | None) -> ImageSet:
    """The images, with others in place of those that cannot be read, where the rule says so."""
    skip = rule == "skip" or (rule is None and len(images) > 0 and images.labels is None)
    return Readable(images) if skip else images


def sample(images: ImageSet, limit: int | None) -> ImageSet:
    """At most ``limit`` of the images, balanced over classes, always the same; all of them for None."""
    if limit is None or limit >= len(images):
        return images
    return Subset(images, balanced_indices(images.labels, len(images), limit, SUBSET_SEED))
