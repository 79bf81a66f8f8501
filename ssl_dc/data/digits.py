"""Scikit-learn's handwritten digits, and images held in an array."""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt
from PIL import Image

from ssl_dc.data.base import DataSet, ImageSet, Labels, Splits

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
        # Imported here: scikit-learn takes longer to import than these images to read.
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split

        digits = load_digits()
        grey = np.rint(digits.images * (255 / 16)).astype(np.uint8)  # scikit-learn counts from 0 to 16
        pixels = np.repeat(grey[..., None], 3, axis=-1)
        labels = digits.target.astype(np.int64)
        train, test = train_test_split(
            np.arange(len(labels)), test_size=TEST_IMAGES, stratify=labels, random_state=SPLIT_SEED
        )
        train_images = ArrayImages(pixels[train], labels[train])
        return Splits(
            train=train_images,
            evaluation_train=train_images,
            test=ArrayImages(pixels[test], labels[test]),
            classes=tuple(str(name) for name in digits.target_names),
        )
