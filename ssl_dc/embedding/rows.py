"""The images that are embedded, one a row, with what each is called."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import NamedTuple

import torch
from PIL.Image import Image
from torch import Tensor
from torch.utils.data import Dataset

from ssl_dc.data.base import DataSet, ImageSet
from ssl_dc.data.subsets import open_whole, sample
from ssl_dc.errors import ConfigError, DataError

SPLITS = ("train", "evaluation_train", "calibration", "test", "others")
"""The parts of a data set, in the order of their rows."""


class Row(NamedTuple):
    """An image.

    Attributes:
        split: The part of the data set that it is in.
        name: What the data set calls it: its path, or its number.
        label: Its class; None in a set without labels.
    """

    split: str
    name: str
    label: int | None


class Rows:
    """The images of some parts of a data set, one after the other.

    Args:
        data_set: The data set.
        splits: The parts to take, of :data:`SPLITS`; by default all that it has.

    Attributes:
        sizes: How many images each part has.
        classes: Names of the classes, which labels index.
        found: What was understood of the user's files, in words; empty for a data set whose files are always the same.

    Raises:
        ConfigError: If it lacks a part.
        DataError: If it cannot be opened, or has no images.
    """

    def __init__(self, data_set: DataSet, splits: Sequence[str] = ()) -> None:
        opened, options = open_whole(data_set), data_set.options
        parts: dict[str, ImageSet | None] = {
            "train": sample(opened.train, options.limit),
            "evaluation_train": None
            if opened.evaluation_train is opened.train
            else sample(opened.evaluation_train, options.limit),
            "calibration": opened.calibration,
            "test": sample(opened.test, options.test_limit),
            "others": opened.others if options.test_limit is None else None,
        }
        there = {name: images for name in SPLITS if (images := parts[name]) is not None and len(images)}
        for name in splits:
            if name not in there:
                raise ConfigError(f"--split {name}: this data set has {', '.join(there) or 'no images'}")
        chosen = {name: images for name, images in there.items() if not splits or name in splits}
        if not chosen:
            raise DataError("there are no images to take features of")
        self.classes = opened.classes
        found = opened.found
        self.found = "" if found is None else "; ".join(filter(None, (found.summary, str(found.left_out))))
        self.sizes = {name: len(images) for name, images in chosen.items()}
        self._names, self._parts = tuple(chosen), tuple(chosen.values())
        self._ends = list(accumulate(self.sizes.values()))
        self._labels = [images.labels for images in self._parts]
        unlabelled = all(labels is None for labels in self._labels)
        self._skip = options.bad_images == "skip" or (options.bad_images is None and unlabelled)

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, number: int) -> Row:
        """The row of that number."""
        part, index = self._place(number)
        labels = self._labels[part]
        return Row(self._names[part], self._parts[part].name(index), None if labels is None else int(labels[index]))

    def class_of(self, row: Row) -> str | None:
        """The name of a row's class; None without a label, or with a hidden one."""
        known = row.label is not None and 0 <= row.label < len(self.classes)
        return self.classes[row.label] if known else None  # type: ignore[index]  # it is known

    def image(self, number: int) -> Image | None:
        """The image of a row; None if it cannot be read and the data set's ``bad_images`` is to skip such ones.

        Raises:
            DataError: If it cannot be read, and is not to be skipped.
        """
        part, index = self._place(number)
        try:
            return self._parts[part].image(index)
        except DataError:
            if not self._skip:
                raise
            return None

    def reason(self, number: int) -> str:
        """Why an image cannot be read."""
        part, index = self._place(number)
        try:
            self._parts[part].image(index)
        except DataError as error:
            return str(error)
        return f"image {self[number].name} could not be read; now it can"

    def fingerprints(self) -> list[str]:
        """A digest of each part, see :meth:`ssl_dc.ImageSet.fingerprint`."""
        return [images.fingerprint() for images in self._parts]

    def _place(self, number: int) -> tuple[int, int]:
        """The part that holds a row, and the number of the image in it."""
        part = bisect_right(self._ends, number)
        return part, number - (self._ends[part - 1] if part else 0)


class PreparedRows(Dataset[tuple[int, "Tensor | None"]]):
    """Rows as the network sees them: the number, and (3, H, H), or None for an image that is skipped.

    Args:
        rows: The images.
        transform: Makes a tensor of one.
    """

    def __init__(self, rows: Rows, transform: Callable[[Image], Tensor]) -> None:
        self._rows, self._transform = rows, transform

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, number: int) -> tuple[int, Tensor | None]:
        image = self._rows.image(number)
        return number, None if image is None else self._transform(image)


def without_skipped(batch: Sequence[tuple[int, Tensor | None]]) -> tuple[Tensor, Tensor]:
    """The numbers (n,) and the images (n, 3, H, H) of those of a batch that could be read."""
    read = [(number, image) for number, image in batch if image is not None]
    images = torch.stack([image for _, image in read]) if read else torch.empty(0)
    return torch.tensor([number for number, _ in read], dtype=torch.int64), images
