"""What a data set is."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from ssl_dc.errors import DataError

if TYPE_CHECKING:
    from PIL.Image import Image

    from ssl_dc.plugins.options import DataOptions

Labels = npt.NDArray[np.int64]


class Blocks(NamedTuple):
    """Parts of a set that lie together, such as the shards of a data set, and are best read one after the other.

    Attributes:
        starts: The number of the first image of each block, (b,) int64, ascending, the first of them 0.
        together: How many blocks a training shuffles into one another at a time, at least 1.
    """

    starts: npt.NDArray[np.int64]
    together: int


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

    def name(self, index: int) -> str:
        """What the image of that number is called, such as its path. By default it is the number."""
        return str(index)

    def blocks(self) -> Blocks | None:
        """The blocks that a training reads in turn. None, as by default, if images are read equally fast in any order."""
        return None

    def prepare(self) -> None:  # noqa: B027  # most sets have nothing to do
        """Called once before a training, in the process that starts others to draw views."""

    def size(self, index: int) -> tuple[int, int]:
        """Width and height of the image of that number, in pixels, as it is stored.

        By default the image is decoded. A set that can read the size from a header should.

        Raises:
            DataError: If it cannot be read.
        """
        return self.image(index).size

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


class OtherImages(ImageSet):
    """The images of a set, seen in another way. Labels, names, sizes and the fingerprint are those of the set.

    Args:
        images: The set.
    """

    def __init__(self, images: ImageSet) -> None:
        self._images = images

    @property
    def labels(self) -> Labels | None:
        """Class of each image, (n,) int64, or None."""
        return self._images.labels

    def __len__(self) -> int:
        return len(self._images)

    def blocks(self) -> Blocks | None:
        """Those of the set."""
        return self._images.blocks()

    def prepare(self) -> None:
        """Let the set get ready."""
        self._images.prepare()

    def size(self, index: int) -> tuple[int, int]:
        """Width and height of the image of that number, as it is stored."""
        return self._images.size(index)

    def name(self, index: int) -> str:
        """What the set calls the image of that number."""
        return self._images.name(index)

    def fingerprint(self) -> str:
        """That of the set."""
        return self._images.fingerprint()


def spread(count: int) -> list[int]:
    """At most 64 of so many numbers, from the first to the last, the same distance apart."""
    return [round(number) for number in np.linspace(0, max(0, count - 1), min(count, 64))]


ONE_OF = {
    "not pictures": "not a picture",
    "raw camera files": "raw camera file",
    "hidden folders": "hidden folder",
    "pipes, devices or sockets": "pipe, device or socket",
    "links that lead nowhere": "link that leads nowhere",
    "links into another split": "link into another split",
    "pictures listed already": "picture listed already",
    "folders listed already": "folder listed already",
    "folders above the data": "folder above the data",
    "folders that cannot be opened": "folder that cannot be opened",
}
"""What a single file or folder of a kind is called, where that differs from the kind."""


class LeftOut:
    """Files that a data set does not use, by the kind of reason.

    Attributes:
        reasons: For each kind, such as ``broken``, the reason for each path.
    """

    def __init__(self) -> None:
        self.reasons: dict[str, dict[str, str]] = {}

    def add(self, kind: str, path: str, reason: str) -> None:
        """Take up a file or a folder."""
        self.reasons.setdefault(kind, {})[path] = reason

    def take_up(self, other: LeftOut) -> None:
        """Take up all that another has."""
        for kind, paths in other.reasons.items():
            self.reasons.setdefault(kind, {}).update(paths)

    def __str__(self) -> str:
        """How many there are, such as "31 files left out: 22 not pictures, 9 broken"; empty if there are none."""
        counts = sorted(((len(paths), kind) for kind, paths in self.reasons.items()), reverse=True)
        files = [(count, kind) for count, kind in counts if "folders" not in kind]
        folders = [(count, kind) for count, kind in counts if "folders" in kind]
        return "; ".join(_counted(some, what) for some, what in ((files, "file"), (folders, "folder")) if some)


def _counted(kinds: Sequence[tuple[int, str]], what: str) -> str:
    total = sum(count for count, _ in kinds)
    named = ", ".join(f"{count:,} {ONE_OF.get(kind, kind) if count == 1 else kind}" for count, kind in kinds)
    return f"{total:,} {what}{'' if total == 1 else 's'} left out: {named}"


class Found(NamedTuple):
    """What a data set found where it was told to look, for the user to check.

    Attributes:
        summary: What was understood, such as "1,204 pictures, no labels".
        left_out: What is not used.
    """

    summary: str
    left_out: LeftOut


class Splits(NamedTuple):
    """A data set, opened.

    Attributes:
        train: What pre-training sees; may be unlabelled.
        evaluation_train: Labelled images that kNN and the linear classifier learn from.
        test: Images held out for what is reported. Without labels, cost alone is measured on them.
        classes: Names of the classes; labels index them. Empty without labels.
        calibration: Images on which the gates' thresholds are set to meet the budget; None for those of ``train``.
        found: What was understood of the user's files; None for a data set whose files are always the same.
        others: Held-out images without labels that neither calibrate nor measure; only ``embed`` takes them.
    """

    train: ImageSet
    evaluation_train: ImageSet
    test: ImageSet
    classes: tuple[str, ...]
    calibration: ImageSet | None = None
    found: Found | None = None
    others: ImageSet | None = None


class DataSet(ABC):
    """A named data set, built from its options.

    Args:
        options: Where it is, how much of it to use.
    """

    def __init__(self, options: DataOptions) -> None:
        self.options = options

    @abstractmethod
    def open(self) -> Splits:
        """Find the images, whole; :func:`ssl_dc.open_splits` takes what ``limit`` asks for.

        Raises:
            DataError: If they are not there or cannot be used; the message says what was expected where.
        """
