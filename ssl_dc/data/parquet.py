"""Images in parquet files, in the convention of Hugging Face data sets."""

from __future__ import annotations

import hashlib
import json
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from ssl_dc.data.base import DataSet, Found, ImageSet, Labels, LeftOut, Splits, spread
from ssl_dc.data.encoded import EncodedImages
from ssl_dc.data.held_out import described, splits_of
from ssl_dc.data.labels import are_hidden, check_labels, integer_labels, numbered_classes
from ssl_dc.data.options import ParquetOptions
from ssl_dc.data.parquet_files import HELD_OUT, LAYOUT, TRAIN, MemoryBound, ParquetFile, find_splits
from ssl_dc.data.streamed_parquet import StreamedParquetImages
from ssl_dc.errors import DataError
from ssl_dc.plugins.options import root_given
from ssl_dc.printable import name_of

_DEFAULTS = ParquetOptions()


class ParquetImages(EncodedImages):
    """Encoded images of one or more parquet files, decoded when asked for.

    The encoded bytes lie in Arrow's buffers, which forked workers share. A pickled copy leaves them out and reads the files
    again when its first image is asked for.

    Args:
        files: The files.
        column: Name of the column of images.
        labels: (n,) int64, or None.
        bound: How much memory may be taken.
    """

    def __init__(self, files: Sequence[Path], column: str, labels: Labels | None, bound: MemoryBound) -> None:
        self._files, self._column, self._labels = tuple(files), column, labels
        self._encoded, self._ends = self._read(bound)

    @property
    def labels(self) -> Labels | None:
        """Class of each image, (n,) int64, or None."""
        return self._labels

    def __len__(self) -> int:
        return self._ends[-1]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_encoded": None}

    def fingerprint(self) -> str:
        """Of all labels, of the encoded images' lengths, and of the bytes of some."""
        import pyarrow.compute

        encoded = self._bytes()
        digest = hashlib.sha256(b"" if self._labels is None else np.ascontiguousarray(self._labels).data)
        digest.update(pyarrow.compute.binary_length(encoded).fill_null(-1).to_numpy().astype(np.int64).data)
        for index in spread(len(self)):
            digest.update(encoded[index].as_py() or b"")
        return digest.hexdigest()

    def name(self, index: int) -> str:
        """Its row and its file."""
        number = bisect_right(self._ends, index)
        return f"{index - (self._ends[number - 1] if number else 0)} of {self._files[number]}"

    def encoded(self, index: int) -> tuple[BytesIO, str]:
        """The bytes of the image of that number, and its name for messages.

        Raises:
            DataError: If it has none.
        """
        name = self.name(index)
        encoded = self._bytes()[int(index)].as_py()
        if encoded is None:
            raise DataError(f"image {name} has no bytes; only images kept in the parquet file itself can be read.")
        return BytesIO(encoded), name

    def _bytes(self) -> Any:
        """The encoded images, as Arrow's chunked array."""
        if self._encoded is None:
            self._encoded, _ = self._read(MemoryBound())
        return self._encoded

    def _read(self, bound: MemoryBound) -> tuple[Any, list[int]]:
        """The encoded images, and the number of the first image after each file."""
        import pyarrow

        of_files = [
            file.read(self._column, _field_of_bytes(file, self._column), bound) for file in map(ParquetFile, self._files)
        ]
        ends = np.cumsum([sum(map(len, arrays)) for arrays in of_files]).tolist()
        large = [array.cast(pyarrow.large_binary()) for arrays in of_files for array in arrays]
        return pyarrow.chunked_array(large, pyarrow.large_binary()), ends


class Parquet(DataSet):
    """The data set ``parquet``: parquet files in a folder, or one file.

    The files are read into memory whole, encoded as they are, or from disk as they are needed (``stream``). Class names are
    taken from the metadata that Hugging Face's ``datasets`` writes; without it, classes are named by their numbers. A
    held-out split whose labels are hidden (all below 0) is passed over for the next one. Where none is held out, a share of
    the training images is. Without a column of labels the images have none.

    Args:
        options: The folder; names of the columns; the share to hold out.
    """

    options: ParquetOptions

    def open(self) -> Splits:
        """Read the files.

        Raises:
            DataError: If pyarrow is not installed, or the files or their columns are not as expected.
        """
        root = _root(self.options)
        files = {split: _with_rows(paths) for split, paths in find_splits(root).items()}
        train = files[TRAIN]
        if not train:
            raise DataError(f"the parquet files of the split {TRAIN} in {root} hold no images.")
        bound = MemoryBound()
        labels = self._labels(train, bound)
        classes = () if labels is None else self._classes(train, labels)
        held_out = self._held_out(files, classes, bound)
        images = self._images(train, labels, bound)
        splits = splits_of(images, held_out, classes, self.options.hold_out, str(root))
        return splits._replace(found=Found(f"{root}: {described(splits)}", LeftOut()))

    def _classes(self, train: Sequence[ParquetFile], labels: Labels) -> tuple[str, ...]:
        classes = _class_names(train, self.options.label_column) or numbered_classes(labels)
        check_labels(labels, classes, str(train[0].path))
        return classes

    def _held_out(
        self, files: Mapping[str, Sequence[ParquetFile]], classes: tuple[str, ...], bound: MemoryBound
    ) -> Iterator[ImageSet]:
        """The images of each held-out split; where there are classes, of those whose labels are known."""
        for of_split in (files[split] for split in HELD_OUT if files.get(split)):
            labels = self._labels(of_split, bound) if classes else None
            if labels is not None:
                check_labels(labels, classes, str(of_split[0].path))
            if labels is not None or not classes:
                yield self._images(of_split, labels, bound)

    def _images(self, files: Sequence[ParquetFile], labels: Labels | None, bound: MemoryBound) -> ImageSet:
        column = self._image_column(files[0])
        if self.options.stream:
            fields = {_field_of_bytes(file, column) for file in files}
            if len(fields) > 1:
                raise DataError(f"some of {files[0].path.parent} hold structs in the column {column!r}, and others bytes.")
            return StreamedParquetImages(files, column, fields.pop(), labels)
        return ParquetImages([file.path for file in files], column, labels, bound)

    def _image_column(self, file: ParquetFile) -> str:
        """The column of images: the one that the options name, or by default the only one that can be it."""
        wanted = self.options.image_column
        if wanted in file.names:
            return wanted
        candidates = [name for name in file.names if _is_struct_of_bytes(file.schema.field(file.names.index(name)).type)]
        if wanted == _DEFAULTS.image_column and len(candidates) == 1:
            return candidates[0]
        raise DataError(_no_column(file, wanted))

    def _labels(self, files: Sequence[ParquetFile], bound: MemoryBound) -> Labels | None:
        """The labels of a split, (n,) int64; None if there is no such column, or if all labels are hidden."""
        column = self.options.label_column
        if all(column not in file.names for file in files) and column == _DEFAULTS.label_column:
            return None
        labels = np.concatenate([_labels_of(file, column, bound) for file in files])
        return None if are_hidden(labels) else labels


def _root(options: ParquetOptions) -> Path:
    root = options.root
    if root is None:
        raise DataError(f"data set 'parquet' needs --data-root FOLDER, a folder that holds {LAYOUT}.")
    if not root.is_dir() and not root.is_file():
        raise DataError(
            f"{root.absolute()} ({root_given(options)}) is not there; it should be a folder that holds {LAYOUT}."
        )
    return root.absolute()


def _with_rows(paths: Sequence[Path]) -> list[ParquetFile]:
    """The files that hold rows. Others say nothing of the types of their columns."""
    return [file for file in map(ParquetFile, paths) if len(file)]


def _no_column(file: ParquetFile, column: str) -> str:
    return (
        f"{file.path} has no column {column!r}; its columns are {file.shown_names()}: set data.image_column and"
        " data.label_column."
    )


def _labels_of(file: ParquetFile, column: str, bound: MemoryBound) -> Labels:
    import pyarrow

    if column not in file.names:
        raise DataError(_no_column(file, column))
    kind = file.type_of(column)
    values = file.read(column, "", bound) if pyarrow.types.is_integer(kind) else []
    return integer_labels(pyarrow.chunked_array(values, kind), column, str(file.path))


def _field_of_bytes(file: ParquetFile, column: str) -> str:
    """The field of a column's structs that holds the encoded images; empty if the column itself does.

    Raises:
        DataError: If there is no such column, or it holds something else.
    """
    import pyarrow

    if column not in file.names:
        raise DataError(_no_column(file, column))
    kind = file.type_of(column)
    if _is_struct_of_bytes(kind):
        return "bytes"
    if pyarrow.types.is_binary(kind) or pyarrow.types.is_large_binary(kind):
        return ""
    raise DataError(
        f"column {column!r} of {file.path} is of type {name_of(str(kind))}; it should hold structs {{bytes, path}}, or"
        " bytes."
    )


def _is_struct_of_bytes(kind: Any) -> bool:
    import pyarrow

    if not pyarrow.types.is_struct(kind) or kind.get_field_index("bytes") < 0:
        return False
    inner = kind.field("bytes").type
    return bool(pyarrow.types.is_binary(inner) or pyarrow.types.is_large_binary(inner))


def _class_names(files: Sequence[ParquetFile], column: str) -> tuple[str, ...]:
    """The names in the metadata ``huggingface`` of the files, none if they have none, or the same for two classes."""
    for file in files:
        try:
            features = json.loads((file.schema.metadata or {})[b"huggingface"])["info"]["features"]
            names = tuple(str(name) for name in features[column]["names"])
        except (KeyError, TypeError, ValueError, RecursionError):  # other programs may keep anything there
            continue
        if names and len(set(names)) == len(names):
            return names
    return ()
