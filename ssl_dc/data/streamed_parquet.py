"""Pictures in parquet files that do not fit into memory: read a row group at a time, where and when they are drawn."""

from __future__ import annotations

import hashlib
import threading
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Sequence
from io import BytesIO
from typing import Any

import numpy as np

from ssl_dc.data.base import Blocks, Labels, spread
from ssl_dc.data.encoded import EncodedImages
from ssl_dc.data.parquet_files import ParquetFile, RowGroup
from ssl_dc.errors import DataError

KEPT_BYTES = 256 * 2**20
"""Row groups that a process keeps take about this much, at most."""
KEPT_IMAGES = 16_384
"""They hold about so many images, at most: more do not mix better."""
LARGEST_GROUP = 512 * 2**20
"""Bytes of the images of a row group, at most: a process keeps two of them or more."""
FINGERPRINTED = 8
"""Images whose bytes the fingerprint is of. Each takes the reading of a row group."""


class StreamedParquetImages(EncodedImages):
    """Encoded images of parquet files, of which each process keeps the row groups that it read last.

    A row group is read whole, also for one of its images. So a training takes a few row groups at a time, and shuffles
    their images into one another (:meth:`blocks`).

    Args:
        files: The files; each holds rows.
        column: Name of the column of images.
        inside: The field of its structs that holds the encoded images; empty if the column itself does.
        labels: (n,) int64, or None.

    Raises:
        DataError: If a row group is too large to be kept.
    """

    def __init__(self, files: Sequence[ParquetFile], column: str, inside: str, labels: Labels | None) -> None:
        self._files, self._column, self._inside, self._labels = tuple(files), column, inside, labels
        self._groups: list[tuple[int, RowGroup]] = []
        rows, sizes = list[int](), list[int]()
        for number, file in enumerate(self._files):
            for group in file.groups(column, inside):
                if group.packed_size > LARGEST_GROUP:
                    raise DataError(
                        f"{file.path} has a row group of {group.packed_size / 2**20:,.0f} MiB, and at most"
                        f" {LARGEST_GROUP // 2**20} MiB are read at a time; write it with smaller ones:"
                        " pyarrow.parquet.write_table(table, file, row_group_size=1000)."
                    )
                if group.rows:
                    self._groups.append((number, group))
                    rows.append(group.rows)
                    sizes.append(group.packed_size)
        self._starts = np.cumsum([0, *rows[:-1]], dtype=np.int64)
        self._n = sum(rows)
        share = min(KEPT_BYTES / max(1, sum(sizes)), KEPT_IMAGES / self._n)
        self._together = max(2, int(share * len(rows)))
        self._packed = np.array(sizes, np.int64)
        self._kept: OrderedDict[int, Any] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def labels(self) -> Labels | None:
        """Class of each image, (n,) int64, or None."""
        return self._labels

    def __len__(self) -> int:
        return self._n

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_kept": OrderedDict(), "_lock": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update({**state, "_lock": threading.Lock()})

    def blocks(self) -> Blocks:
        """Each row group is one."""
        return Blocks(self._starts, self._together)

    def fingerprint(self) -> str:
        """Of all labels, of the lengths of the row groups, and of the bytes of some images."""
        digest = hashlib.sha256(b"" if self._labels is None else np.ascontiguousarray(self._labels).data)
        digest.update(self._starts.data)
        digest.update(self._packed.data)
        numbers = spread(self._n)
        for index in numbers[:: -(-len(numbers) // FINGERPRINTED)]:
            digest.update(self._value(index) or b"")
        return digest.hexdigest()

    def name(self, index: int) -> str:
        """Its number, and the file."""
        return f"{index} of the split, in {self._files[self._groups[self._group_of(index)][0]].path},"

    def encoded(self, index: int) -> tuple[BytesIO, str]:
        """The bytes of the image of that number, and its name for messages.

        Raises:
            DataError: If it has none, or its file cannot be read.
        """
        value = self._value(index)
        if value is None:
            raise DataError(
                f"image {self.name(index)} has no bytes; only images kept in the parquet file itself can be read."
            )
        return BytesIO(value), self.name(index)

    def _group_of(self, index: int) -> int:
        return bisect_right(self._starts, index) - 1

    def _value(self, index: int) -> bytes | None:
        group = self._group_of(index)
        value: bytes | None = self._read(group)[int(index - self._starts[group])].as_py()
        return value

    def _read(self, group: int) -> Any:
        """The encoded images of a row group, as Arrow's chunked array."""
        with self._lock:
            if group not in self._kept:
                number, of_file = self._groups[group]
                self._kept[group] = self._files[number].read_group(of_file, self._column, self._inside, 2 * LARGEST_GROUP)
                while len(self._kept) > self._together:
                    self._kept.popitem(last=False)
            self._kept.move_to_end(group)
            return self._kept[group]
