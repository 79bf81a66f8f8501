"""Scikit-learn's handwritten digits, and images held in an array."""

from __future__ import annotations

import hashlib
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from ssl_dc.data.base import DataSet, ImageSet, Labels, Splits
from ssl_dc.data.subsets import Indices

TEST_IMAGES = 360
SPLIT_SEED = 0


class ArrayImages(ImageSet):
    """Images of one size, held in memory.

    Args:
        pixels: (n, height, width, 3) uint8, 0 to 255.
        labels: (n,) int64, or None.
    """

    def __init__(self, pixels: npt.NDArray[np.uint8], labels: Labels | None) -> None:
        self._pixels = pixels
        self._labels = labels

    @property
    def labels(self) -> Labels | None:
        """Class of each image, (n,) int64, or None."""
        return self._labels

    def __len__(self) -> int:
        return len(self._pixels)

    def image(self, index: int) -> Image.Image:
        """The image of that number, in RGB."""
        return Image.fromarray(self._pixels[index])

    def fingerprint(self) -> str:
        """Of all pixels and labels."""
        digest = hashlib.sha256(f"{self._pixels.shape}".encode())
        for values in (self._pixels, self._labels):
            digest.update(b"" if values is None else np.ascontiguousarray(values).data)
        return digest.hexdigest()


class Digits(DataSet):
    """The data set ``digits``: 1,437 images to train on and 360 held out, 8x8, always the same ones."""

    def open(self) -> Splits:
        """The two parts, each with the share of every class that the whole has."""
        sixteenths, labels = _digits()
        grey = np.rint(sixteenths * (255 / 16)).astype(np.uint8)
        pixels = np.repeat(grey[..., None], 3, axis=-1)
        train, test = stratified_split(labels, TEST_IMAGES, SPLIT_SEED)
        train_images = ArrayImages(pixels[train], labels[train])
        return Splits(
            train=train_images,
            evaluation_train=train_images,
            test=ArrayImages(pixels[test], labels[test]),
            classes=tuple(map(str, range(10))),
        )


def _digits() -> tuple[npt.NDArray[np.float64], Labels]:
    """Images (1797, 8, 8), from 0 to 16, and their classes, from the file that scikit-learn brings.

    Scikit-learn itself takes longer to import than all else that a training does before its first step.
    """
    package = find_spec("sklearn")
    file = Path(package.origin or "").parent / "datasets" / "data" / "digits.csv.gz" if package else Path()
    if file.is_file():
        rows = np.loadtxt(file, delimiter=",")
        return rows[:, :-1].reshape(-1, 8, 8), rows[:, -1].astype(np.int64)
    from sklearn.datasets import load_digits  # a version that keeps the file elsewhere

    digits = load_digits()
    return digits.images, digits.target.astype(np.int64)


def stratified_split(labels: Labels, held_out: int, seed: int) -> tuple[Indices, Indices]:
    """Numbers of the images to train on and of those held out, both in random order, with equal shares of every class.

    They are those of scikit-learn's ``train_test_split(..., stratify=labels)``, which the first versions called.

    Args:
        labels: Class of each image, (n,), from 0.
        held_out: How many images are held out.
        seed: Seed of the draw.
    """
    draw = np.random.RandomState(seed)  # that of scikit-learn
    counts = np.bincount(labels)
    trained = _shared_out(len(labels) - held_out, counts, draw)
    left = _shared_out(held_out, counts - trained, draw)
    train: list[int] = []
    test: list[int] = []
    for number, members in enumerate(np.split(np.argsort(labels, kind="stable"), np.cumsum(counts)[:-1])):
        shuffled = members[draw.permutation(counts[number])]
        train.extend(shuffled[: trained[number]])
        test.extend(shuffled[trained[number] :][: left[number]])
    return draw.permutation(train), draw.permutation(test)


def _shared_out(total: int, counts: npt.NDArray[np.int64], draw: np.random.RandomState) -> npt.NDArray[np.int64]:
    """A total shared out in proportion to counts: rounded down, the rest to the largest remainders, ties by chance."""
    exact = counts / counts.sum() * total
    whole: npt.NDArray[np.int64] = np.floor(exact).astype(np.int64)
    remainder = exact - whole
    missing = total - int(whole.sum())
    for value in np.unique(remainder)[::-1]:
        if missing == 0:
            break
        (tied,) = np.where(remainder == value)
        chosen = draw.choice(tied, size=min(len(tied), missing), replace=False)
        whole[chosen] += 1
        missing -= len(chosen)
    return whole
