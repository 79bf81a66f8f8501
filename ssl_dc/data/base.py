"""What a data set is."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from ssl_dc.errors import DataError

if TYPE_CHECKING:
    from PIL.Image import Image

    from ssl_dc.plugins.options import DataOptions

Labels = npt.NDArray[np.int64]


class ImageSet(ABC):
    """Images that can be had by number, with labels if there are any."""

    @property
    @abstractmethod
    def labels(self) -> Labels | None:
        """Class of each image, (n,) int64, or None for an unlabelled set."""

    @abstractmethod
    def __len__(self) -> int:
        """Number of images."""

    @abstractmethod
    def image(self, index: int) -> Image:
        """The image of that number, in RGB, at the size it is stored.

        Raises:
            DataError: If it cannot be read; the message names it.
        """

    def fingerprint(self) -> str:
        """A digest that is another where the images are others, so that a resumed run can tell: 64 hex digits.

        By default of how many there are, their labels, and the pixels of some, spread over all. A set that can tell more
        cheaply, or surely, should.
        """
        digest = hashlib.sha256(f"{len(self)} ".encode())
        digest.update(b"" if self.labels is None else np.ascontiguousarray(self.labels).data)
        for index in spread(len(self)):
            try:
                image = self.image(index)
                digest.update(f"{image.size}".encode() + image.tobytes())
            except DataError:
                digest.update(b"unreadable")
        return digest.hexdigest()


def spread(count: int) -> list[int]:
    """At most 64 of so many numbers, from the first to the last, the same distance apart."""
    return [round(number) for number in np.linspace(0, max(0, count - 1), min(count, 64))]


class Splits(NamedTuple):
    """A data set, opened.

    Attributes:
        train: What pre-training sees; may be unlabelled.
        evaluation_train: Labelled images that kNN and the linear classifier learn from.
        test: Labelled images held out for what is reported.
        classes: Names of the classes; labels index them.
    """

    train: ImageSet
    evaluation_train: ImageSet
    test: ImageSet
    classes: tuple[str, ...]


class DataSet(ABC):
    """A named data set, built from its options.

    Args:
        options: Where it is, how much of it to use.
    """

    def __init__(self, options: DataOptions) -> None:
        self.options = options

    @abstractmethod
    def open(self) -> Splits:
        """Find the images, whole; :func:`ssl_dc.data.subsets.open_splits` takes what ``limit`` asks for.

        Raises:
            DataError: If they are not there or cannot be used; the message says what was expected where.
        """
