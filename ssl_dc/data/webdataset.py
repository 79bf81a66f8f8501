"""Pictures in tar files, as WebDataset keeps them: of any number, read from disk where they lie."""

from __future__ import annotations

import hashlib
import os
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import numpy as np

from ssl_dc.data.base import Blocks, DataSet, Found, ImageSet, Labels, LeftOut, Splits, spread
from ssl_dc.data.encoded import EncodedImages
from ssl_dc.data.held_out import described, splits_of
from ssl_dc.data.labels import are_hidden, check_labels, numbered_classes
from ssl_dc.data.listing import files_below
from ssl_dc.data.options import WebDatasetOptions
from ssl_dc.data.parquet_files import HELD_OUT, TRAIN, split_in
from ssl_dc.data.pictures import PICTURE_ENDINGS
from ssl_dc.data.tar_files import NO_LABEL, Records, records_of
from ssl_dc.errors import DataError
from ssl_dc.plugins.options import root_given

LAYOUT = "tar files, such as train-000000.tar, whose members come in records: 000001.jpg, 000001.cls, ..."
"""What a root should hold, for messages."""
SHUFFLED_TOGETHER = 16_384
"""Pictures of several tar files that are shuffled into one another at a time, about."""
_OPEN_FILES = 64
"""Tar files that a process keeps open."""


class TarImages(EncodedImages):
    """Encoded pictures in tar files. Each is read when it is asked for, and no other byte with it.

    Args:
        paths: The files.
        records: Where the pictures lie in each.
        labels: (n,) int64, or None.
    """

    def __init__(self, paths: Sequence[Path], records: Sequence[Records], labels: Labels | None) -> None:
        self._paths, self._labels = tuple(paths), labels
        self._starts = np.concatenate([some.starts for some in records])
        self._sizes = np.concatenate([some.sizes for some in records])
        self._ends = np.cumsum([len(some.starts) for some in records]).tolist()

    @property
    def labels(self) -> Labels | None:
        """Class of each image, (n,) int64, or None."""
        return self._labels

    def __len__(self) -> int:
        return len(self._starts)

    def blocks(self) -> Blocks:
        """Each file is one."""
        starts = np.array([0, *self._ends[:-1]], np.int64)
        together = round(SHUFFLED_TOGETHER * len(starts) / max(1, len(self)))
        return Blocks(starts, max(2, together))

    def fingerprint(self) -> str:
        """Of all labels, of the encoded images' lengths, and of the bytes of some."""
        digest = hashlib.sha256(b"" if self._labels is None else np.ascontiguousarray(self._labels).data)
        digest.update(self._sizes.data)
        for index in spread(len(self)):
            digest.update(self.encoded(index)[0].getvalue())
        return digest.hexdigest()

    def name(self, index: int) -> str:
        """Its number among the pictures of its file, and the file."""
        number = bisect_right(self._ends, index)
        return f"{index - (self._ends[number - 1] if number else 0)} of {self._paths[number]}"

    def encoded(self, index: int) -> tuple[BytesIO, str]:
        """The bytes of the image of that number, and its name for messages.

        Raises:
            DataError: If its file cannot be read any more.
        """
        path = self._paths[bisect_right(self._ends, index)]
        try:
            content = os.pread(_opened(path).fileno(), int(self._sizes[index]), int(self._starts[index]))
        except OSError as error:
            raise DataError(f"image {self.name(index)} cannot be read: {error.strerror or error}.") from error
        return BytesIO(content), self.name(index)


@lru_cache(_OPEN_FILES)
def _opened(path: Path) -> BinaryIO:
    """A file that stays open, until too many others are. Reads name their place, so processes and threads may share it."""
    return path.open("rb", buffering=0)


class WebDataset(DataSet):
    """The data set ``webdataset``: tar files in a folder, or one tar file.

    Where each picture lies is read at the start, from the headers of the members: a few seconds for a million on a local
    disk. The pictures are read when they are drawn. Classes are named by their numbers. Splits, hidden labels and sets
    without labels are understood as in ``parquet``.

    Args:
        options: The folder; the endings of pictures and labels; the share to hold out.
    """

    options: WebDatasetOptions

    def open(self) -> Splits:
        """Find the pictures.

        Raises:
            DataError: If there are none, or the files are not as expected.
        """
        root = _root(self.options)
        files = _splits_below(root)
        left_out = LeftOut()
        records = self._records(files[TRAIN], left_out)
        labels = _labels(files[TRAIN], records)
        classes = () if labels is None else numbered_classes(labels)
        if labels is not None:
            check_labels(labels, classes, f"split {TRAIN} in {root}")
        images = TarImages(files[TRAIN], records, labels)
        if not len(images):
            raise DataError(f"the tar files of the split {TRAIN} in {root} hold no pictures; it should hold {LAYOUT}")
        held_out = self._held_out(files, classes, left_out)
        splits = splits_of(images, held_out, classes, self.options.hold_out, str(root))
        return splits._replace(found=Found(f"{root}: {described(splits)}", left_out))

    def _held_out(
        self, files: Mapping[str, Sequence[Path]], classes: tuple[str, ...], left_out: LeftOut
    ) -> Iterator[ImageSet]:
        """The images of each held-out split; where there are classes, of those whose labels are known."""
        for split in HELD_OUT:
            if split not in files:
                continue
            records = self._records(files[split], left_out)
            labels = _labels(files[split], records) if classes else None
            if labels is not None:
                check_labels(labels, classes, str(files[split][0]))
            if sum(len(some.starts) for some in records) and (labels is not None or not classes):
                yield TarImages(files[split], records, labels)

    def _records(self, paths: Sequence[Path], left_out: LeftOut) -> list[Records]:
        records = records_of(paths, self.options.picture, self.options.label)
        for path, some in zip(paths, records, strict=True):
            if some.without:
                left_out.add("with records that hold no picture", str(path), f"{some.without:,} records without a picture")
        return records


def _labels(paths: Sequence[Path], records: Sequence[Records]) -> Labels | None:
    """The labels of a split, (n,) int64; None if no record has one, or if all are hidden.

    Raises:
        DataError: If some records have none.
    """
    labels = np.concatenate([some.labels for some in records])
    missing = labels == NO_LABEL
    if missing.all() or are_hidden(labels):
        return None
    if missing.any():
        path = next(path for path, some in zip(paths, records, strict=True) if (some.labels == NO_LABEL).any())
        raise DataError(
            f"{path} has a picture without a label, and others have labels; --data.label none, or another name that no"
            " member has, means no labels."
        )
    return labels


def _root(options: WebDatasetOptions) -> Path:
    root = options.root
    if root is None:
        raise DataError(f"data set 'webdataset' needs --data-root FOLDER, a folder that holds {LAYOUT}")
    if not root.exists():
        raise DataError(
            f"{root.absolute()} ({root_given(options)}) is not there; it should be a folder that holds {LAYOUT}"
        )
    return root.absolute()


def holds_tars(place: Path) -> bool:
    """Whether a place is a tar file, or a folder with tar files and neither pictures nor parquet files beside them."""
    if place.is_file():
        return place.suffix == ".tar"
    endings = {os.path.splitext(name)[1].lower() for _, name, _ in files_below(str(place), LeftOut())}
    return ".tar" in endings and not endings & (PICTURE_ENDINGS | {".parquet"})


def _splits_below(root: Path) -> dict[str, tuple[Path, ...]]:
    """The tar files of a root by split. Where no name is that of a split, all are of ``train``.

    Raises:
        DataError: If there are none.
    """
    if root.is_file():
        return {TRAIN: (root,)}
    found: dict[str, list[Path]] = {}
    for path, name, _ in files_below(str(root), LeftOut()):
        if name.endswith(".tar") and not name.startswith("."):
            split = split_in(name.removesuffix(".tar")) or split_in(os.path.relpath(os.path.dirname(path), root))
            found.setdefault(split, []).append(Path(path))
    if not found:
        raise DataError(f"folder {root} holds no tar files; it should hold {LAYOUT}")
    if TRAIN not in found:
        found = {TRAIN: [path for paths in found.values() for path in paths]}
    return {split: tuple(sorted(paths)) for split, paths in found.items()}
