"""Keeping part of a set from training where the user held nothing out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from ssl_dc.data.base import ImageSet, Labels, Splits
from ssl_dc.data.subsets import Indices, Subset, occurrence
from ssl_dc.errors import DataError

if TYPE_CHECKING:
    from PIL.Image import Image

HOLD_OUT_SEED = 0
"""Draws the images that are held out. Not the run's seed: runs that differ in it must see the same data."""
MOST_UNLABELLED = 2048
"""At most this many unlabelled images are held out: half to calibrate gates on, half to measure cost on."""
LEAST_UNLABELLED = 20
"""Of fewer unlabelled images than this, none are held out."""


class NoLabelledImages(ImageSet):
    """Stands for labelled images that are not there: empty, and says why when its labels are asked for.

    It lets one pre-train on unlabelled images without having any to evaluate with.

    Args:
        reason: The message of the error.
    """

    def __init__(self, reason: str) -> None:
        self._reason = reason

    @property
    def labels(self) -> Labels | None:
        """Never there.

        Raises:
            DataError: Always.
        """
        raise DataError(self._reason)

    def __len__(self) -> int:
        return 0

    def image(self, index: int) -> Image:  # noqa: ARG002  # there is none of any number
        """Never there.

        Raises:
            DataError: Always.
        """
        raise DataError(self._reason)


def splits_of(train: ImageSet, held_out: Iterator[ImageSet], classes: tuple[str, ...], share: float, where: str) -> Splits:
    """The splits of a set whose training images and held-out images are known.

    Args:
        train: The training images; without labels, so is the set.
        held_out: Sets of images held out, the best first; only those that are used are asked for. Without any, a share of
            the training images is held out.
        classes: Names of the classes.
        share: The share, in [0, 1).
        where: What holds the images, for messages.
    """
    images = next(held_out, None)
    if train.labels is None:
        return unlabelled_splits(train, images, share, where)
    return labelled_splits(train, classes, share) if images is None else Splits(train, train, images, classes)


def labelled_splits(images: ImageSet, classes: tuple[str, ...], share: float) -> Splits:
    """Labelled images, a share of each class held out as test images.

    Args:
        images: All of them.
        classes: Names of the classes.
        share: The share to hold out, in [0, 1).
    """
    kept, test = _parted(images, held_out_indices(images.labels, len(images), share, HOLD_OUT_SEED))
    if not len(test):
        test = NoLabelledImages("no images are held out (data.hold_out is 0), so there is nothing to evaluate on.")
    return Splits(kept, kept, test, classes)


def unlabelled_splits(images: ImageSet, held_out: ImageSet | None, share: float, where: str) -> Splits:
    """Unlabelled images, some held out: half of those to calibrate gates on, half to measure cost on.

    Args:
        images: Those to train on.
        held_out: Images that the user holds out, of which :data:`MOST_UNLABELLED` are drawn; without them, a share of
            ``images`` is held out: at most :data:`MOST_UNLABELLED`, and none of fewer than :data:`LEAST_UNLABELLED`.
        share: The share, in [0, 1).
        where: What holds the images, for messages.
    """
    missing = NoLabelledImages(
        f"evaluation needs labels, and {where} holds images without classes: sort them into train/CLASS/ and val/CLASS/,"
        " or evaluate on a labelled data set: ssl-dc evaluate RUN --eval-data NAME --eval-data-root FOLDER."
    )
    if held_out is None and len(images) >= LEAST_UNLABELLED:
        share = min(share, MOST_UNLABELLED / len(images))
        chosen = held_out_indices(None, len(images), share, HOLD_OUT_SEED)
        images, held_out = _parted(images, chosen)
    if held_out is None or len(held_out) < 2:
        return Splits(images, missing, missing, (), others=held_out)
    drawn = np.random.default_rng(HOLD_OUT_SEED).permutation(len(held_out))[:MOST_UNLABELLED]
    numbers = np.sort(drawn).astype(np.int64)
    calibration, test = Subset(held_out, numbers[::2]), Subset(held_out, numbers[1::2])
    rest = np.setdiff1d(np.arange(len(held_out), dtype=np.int64), numbers)
    return Splits(images, missing, test, (), calibration, others=Subset(held_out, rest) if len(rest) else None)


def described(splits: Splits) -> str:
    """What a set holds, in words, such as "1,083 pictures without labels to train on, 121 held out"."""
    test = len(splits.test)
    if splits.classes:
        return f"{len(splits.train):,} pictures in {len(splits.classes):,} classes to train on, {test:,} held out"
    if splits.calibration is None:
        return f"{len(splits.train):,} pictures, no labels; none are held out"
    held_out, unused = test + len(splits.calibration), 0 if splits.others is None else len(splits.others)
    more = f"; {unused:,} more are held out and not used" if unused else ""
    return (
        f"{len(splits.train) + held_out + unused:,} pictures, no labels; {held_out:,} of them are held out, to calibrate"
        f" gates and measure cost{more}"
    )


def held_out_indices(labels: Labels | None, n_total: int, share: float, seed: int) -> Indices:
    """Choose images at random to hold out, the same share of each class.

    Where the share is above 0, at least one image of each class is held out, if the class has two, and one is kept.

    Args:
        labels: Class of each image, (n_total,) int64; None takes images without regard to class.
        n_total: How many images there are.
        share: The share to hold out, in [0, 1).
        seed: Of the draw, at least 0.

    Returns:
        Numbers of the images to hold out, int64, ascending.
    """
    if share == 0 or n_total == 0:
        return np.empty(0, np.int64)
    shuffled = np.random.default_rng(seed).permutation(n_total).astype(np.int64)
    of_shuffled = np.zeros(n_total, np.int64) if labels is None else labels[shuffled]
    counts = np.bincount(of_shuffled)
    wanted = np.rint(counts * share).astype(np.int64).clip(np.minimum(counts // 2, 1), np.maximum(counts - 1, 0))
    return np.sort(shuffled[occurrence(of_shuffled) < wanted[of_shuffled]])


def _parted(images: ImageSet, held_out: Indices) -> tuple[ImageSet, ImageSet]:
    """The images that are kept and those that are held out."""
    if not len(held_out):
        return images, Subset(images, held_out)
    kept = np.setdiff1d(np.arange(len(images), dtype=np.int64), held_out, assume_unique=True)
    return Subset(images, kept), Subset(images, held_out)
