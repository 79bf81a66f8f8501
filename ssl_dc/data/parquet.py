"""Images in parquet files, in the convention of Hugging Face data sets."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ssl_dc.data.base import DataSet, ImageSet, Labels, Splits, spread
from ssl_dc.data.options import ParquetOptions
from ssl_dc.data.pictures import read_rgb
from ssl_dc.errors import DataError

_SHARD = re.compile(r"-(\d{5})-of-(\d{5})\.parquet$")
_LAYOUT = (
    "train.parquet and test.parquet (or validation.parquet, val.parquet), "
    "or shards such as train-00000-of-00002.parquet, in it or in its folder 'data'"
)


class ParquetImages(ImageSet):
    """Encoded images of one or more parquet files, decoded when asked for.

    The encoded bytes lie in Arrow's buffers, which forked workers share. A pickled copy leaves them out and
    reads the files again when its first image is asked for.

    Args:
        files: The files.
        column: Name of the column of images.
        labels: (n,) int64.
        encoded: Arrow's chunked array of n byte strings, read already.
    """

    def __init__(self, files: Sequence[Path], column: str, labels: Labels, encoded: Any) -> None:
        self._files = tuple(files)
        self._column = column
        self._labels = labels
        self._encoded = encoded

    @property
    def labels(self) -> Labels:
        """Class of each image, (n,) int64."""
        return self._labels

    def __len__(self) -> int:
        return len(self._labels)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_encoded": None}

    def fingerprint(self) -> str:
        """Of all labels, of the encoded images' lengths, and of the bytes of some."""
        import pyarrow.compute

        encoded = self._bytes()
        digest = hashlib.sha256(np.ascontiguousarray(self._labels).data)
        digest.update(pyarrow.compute.binary_length(encoded).fill_null(-1).to_numpy().astype(np.int64).data)
        for index in spread(len(self)):
            digest.update(encoded[index].as_py() or b"")
        return digest.hexdigest()

    def image(self, index: int) -> Image.Image:
        """The image of that number, in RGB.

        Raises:
            DataError: If it cannot be decoded.
        """
        name = f"{index} of {self._files[0]}"
        encoded = self._bytes()[int(index)].as_py()
        if encoded is None:
            raise DataError(f"image {name} has no bytes; only images kept in the parquet file itself can be read.")
        return read_rgb(BytesIO(encoded), name)

    def _bytes(self) -> Any:
        """The encoded images, as Arrow's chunked array."""
        if self._encoded is None:
            self._encoded = _encoded(_read(self._files, [self._column]), self._column, self._files[0])
        return self._encoded


class Parquet(DataSet):
    """The data set ``parquet``: a folder with parquet files of the splits.

    The files are read into memory whole, encoded as they are. Class names are taken from the metadata that
    Hugging Face's ``datasets`` writes; without it, classes are named by their numbers.

    Args:
        options: The folder; names of the columns.
    """

    options: ParquetOptions

    def open(self) -> Splits:
        """Read the files.

        Raises:
            DataError: If pyarrow is not installed, or the files or their columns are not as expected.
        """
        root = self._root()
        train_files = _files(root, ("train",))
        train = self._images(train_files)
        test_files = _files(root, ("test", "validation", "val"))
        test = self._images(test_files)
        classes = self._class_names(train_files[0]) or _numbers(train.labels)
        for images, files in ((train, train_files), (test, test_files)):
            _check_labels(images.labels, classes, str(files[0]))
        return Splits(train, train, test, classes)

    def _root(self) -> Path:
        root = self.options.root
        if root is None:
            raise DataError(f"data set 'parquet' needs --data-root FOLDER, a folder that holds {_LAYOUT}.")
        if not root.is_dir():
            raise DataError(f"folder {root.absolute()} (--data-root) is not there; it should hold {_LAYOUT}.")
        return root.absolute()

    def _images(self, files: tuple[Path, ...]) -> ParquetImages:
        image, label = self.options.image_column, self.options.label_column
        table = _read(files, [image, label])
        encoded = _encoded(table, image, files[0])
        labels = table.column(label)
        if labels.null_count or not str(labels.type).startswith(("int", "uint")):
            raise DataError(
                f"column {label!r} of {files[0]} is of type {labels.type}, with "
                f"{labels.null_count} values missing; it should hold an integer for each image."
            )
        return ParquetImages(files, image, labels.to_numpy().astype(np.int64), encoded)

    def _class_names(self, file: Path) -> tuple[str, ...]:
        """The names in the metadata ``huggingface`` of a file, none if it has none."""
        metadata = _parquet_module().read_schema(file).metadata or {}
        try:
            features = json.loads(metadata[b"huggingface"])["info"]["features"]
            return tuple(str(name) for name in features[self.options.label_column]["names"])
        except (KeyError, TypeError, ValueError):  # other programs may keep anything there
            return ()


def _parquet_module() -> Any:
    """``pyarrow.parquet``.

    Raises:
        DataError: If pyarrow is not installed.
    """
    try:
        import pyarrow.parquet
    except ImportError:
        raise DataError("data set 'parquet' needs pyarrow: pip install 'ssl-dc[parquet]'.") from None
    return pyarrow.parquet


def _files(root: Path, splits: Sequence[str]) -> tuple[Path, ...]:
    """The files of the first of these splits that is there.

    Raises:
        DataError: If none is there, or a shard is missing.
    """
    for split in splits:
        for folder in (root, root / "data"):
            whole = folder / f"{split}.parquet"
            if whole.is_file():
                return (whole,)
            shards = sorted(path for path in folder.glob(f"{split}-*.parquet") if _SHARD.search(path.name))
            if shards:
                _check_shards(shards)
                return tuple(shards)
    raise DataError(f"folder {root} has no parquet file of the split {' or '.join(splits)}; it should hold {_LAYOUT}.")


def _check_shards(shards: Sequence[Path]) -> None:
    numbers = [tuple(map(int, match.groups())) for path in shards if (match := _SHARD.search(path.name))]
    total = numbers[0][1]
    if numbers != [(number, total) for number in range(total)]:
        raise DataError(
            f"folder {shards[0].parent} should hold {total} shards beside {shards[0].name}, "
            f"numbered 00000 to {total - 1:05d}, and has {', '.join(path.name for path in shards)}."
        )


def _read(files: Sequence[Path], columns: list[str]) -> Any:
    """These columns of all files, one after the other, as one Arrow table."""
    parquet = _parquet_module()
    import pyarrow

    tables = []
    for file in files:
        try:
            opened = parquet.ParquetFile(file)
            missing = [name for name in columns if name not in opened.schema_arrow.names]
            if missing:
                raise DataError(
                    f"{file} has no column {missing[0]!r}; its columns are "
                    f"{', '.join(opened.schema_arrow.names)}: set data.image_column and data.label_column."
                )
            tables.append(opened.read(columns=columns))
        except (pyarrow.ArrowException, OSError) as error:
            raise DataError(f"{file} cannot be read as a parquet file: {error}.") from error
    try:
        return pyarrow.concat_tables([table.replace_schema_metadata(None) for table in tables])
    except pyarrow.ArrowException as error:
        raise DataError(f"the shards beside {files[0]} differ in their columns: {error}.") from error


def _encoded(table: Any, column: str, file: Path) -> Any:
    """The byte strings of a column of structs {bytes, path}, or of bytes."""
    import pyarrow
    import pyarrow.compute

    images = table.column(column)
    if pyarrow.types.is_struct(images.type) and images.type.get_field_index("bytes") >= 0:
        images = pyarrow.compute.struct_field(images, "bytes")
    if not (pyarrow.types.is_binary(images.type) or pyarrow.types.is_large_binary(images.type)):
        raise DataError(
            f"column {column!r} of {file} is of type {images.type}; it should hold structs {{bytes, path}}, or bytes."
        )
    return images


def _numbers(labels: Labels) -> tuple[str, ...]:
    return tuple(str(number) for number in range(int(labels.max(initial=-1)) + 1))


def _check_labels(labels: Labels, classes: tuple[str, ...], where: str) -> None:
    if not len(labels):
        raise DataError(f"{where} holds no images.")
    if labels.min() < 0 or labels.max() >= len(classes):
        wrong = labels[(labels < 0) | (labels >= len(classes))][0]
        raise DataError(f"{where} holds the label {wrong}; labels of {len(classes)} classes are 0 to {len(classes) - 1}.")
