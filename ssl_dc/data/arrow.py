"""Data sets of any size, saved by Hugging Face ``datasets`` and read from disk where they lie."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

from ssl_dc.data.base import DataSet, Found, ImageSet, Labels, LeftOut, Splits
from ssl_dc.data.encoded import EncodedImages
from ssl_dc.data.held_out import described, splits_of
from ssl_dc.data.labels import are_hidden, check_labels, integer_labels, numbered_classes
from ssl_dc.data.options import ArrowOptions
from ssl_dc.data.parquet_files import HELD_OUT, TRAIN
from ssl_dc.errors import DataError
from ssl_dc.plugins.options import root_given
from ssl_dc.printable import name_of

_LAYOUT = "a data set written by the method save_to_disk of Hugging Face datasets"
_DEFAULTS = ArrowOptions()


class ArrowImages(EncodedImages):
    """Encoded images of a saved data set, decoded when asked for.

    The file is mapped into memory: what is not read takes none, and all processes share what is. A pickled copy holds the
    path of the file alone.

    Args:
        rows: A :class:`datasets.Dataset` whose column of images is not decoded.
        column: Name of that column.
        labels: (n,) int64, or None.
        name: What to call the set in messages.
    """

    def __init__(self, rows: Any, column: str, labels: Labels | None, name: str) -> None:
        self._rows, self._column, self._labels, self._name = rows, column, labels, name

    @property
    def labels(self) -> Labels | None:
        """Class of each image, (n,) int64, or None."""
        return self._labels

    def __len__(self) -> int:
        return len(self._rows)

    def encoded(self, index: int) -> tuple[BytesIO, str]:
        """The bytes of the image of that number, and its name for messages.

        Raises:
            DataError: If it has none.
        """
        name = f"{index} of {self._name}"
        value = self._rows[int(index)][self._column]
        encoded = value["bytes"] if isinstance(value, dict) else value
        if encoded is None:
            raise DataError(f"image {name} has no bytes; only images kept in the data set itself can be read.")
        return BytesIO(encoded), name


class Arrow(DataSet):
    """The data set ``arrow``: what ``datasets.Dataset.save_to_disk`` or ``datasets.DatasetDict.save_to_disk`` wrote.

    It opens at once and takes little memory, however large it is. All that ``datasets`` reads can be saved so: parquet,
    WebDataset's tar files, folders. Splits, columns, hidden labels and sets without labels are understood as in
    ``parquet``.

    Args:
        options: The folder; names of the columns; the share to hold out.
    """

    options: ArrowOptions

    def open(self) -> Splits:
        """Open the data set.

        Raises:
            DataError: If ``datasets`` is not installed, or the folder or its columns are not as expected.
        """
        root = _root(self.options)
        sets = _opened(root)
        train = sets.get(TRAIN)
        if not train:
            raise DataError(f"{root} holds no images in a split {TRAIN}; its splits are {_shown(list(sets))}.")
        where = f"split {TRAIN} in {root}"
        labels = self._labels(train, where)
        classes = () if labels is None else self._classes(train, labels, where)
        images = self._images(train, labels, where)
        splits = splits_of(images, self._held_out(sets, classes, root), classes, self.options.hold_out, str(root))
        return splits._replace(found=Found(f"{root}: {described(splits)}", LeftOut()))

    def _held_out(self, sets: Mapping[str, Any], classes: tuple[str, ...], root: Path) -> Iterator[ImageSet]:
        """The images of each held-out split; where there are classes, of those whose labels are known."""
        for split in HELD_OUT:
            if not sets.get(split):
                continue
            where = f"split {split} in {root}"
            labels = self._labels(sets[split], where) if classes else None
            if labels is not None:
                check_labels(labels, classes, where)
            if labels is not None or not classes:
                yield self._images(sets[split], labels, where)

    def _images(self, rows: Any, labels: Labels | None, where: str) -> ArrowImages:
        import datasets

        column = self._image_column(rows, where)
        chosen = rows.select_columns([column])
        if isinstance(rows.features[column], datasets.Image):
            chosen = chosen.cast_column(column, datasets.Image(decode=False))
        return ArrowImages(chosen, column, labels, where)

    def _image_column(self, rows: Any, where: str) -> str:
        """The column of images: the one that the options name, or by default the only one that can be it."""
        wanted, names = self.options.image_column, list(rows.features)
        candidates = [str(name) for name in names if _holds_images(rows.features[name])]
        if wanted in candidates:
            return wanted
        if wanted not in names and wanted == _DEFAULTS.image_column and len(candidates) == 1:
            return candidates[0]
        raise DataError(
            f"{where} has no column {wanted!r} of encoded images; its columns are {_shown(names)}: set data.image_column"
            " and data.label_column."
        )

    def _labels(self, rows: Any, where: str) -> Labels | None:
        """The labels of a split, (n,) int64; None if there is no such column, or if all labels are hidden."""
        column, names = self.options.label_column, list(rows.features)
        if column not in names:
            if column == _DEFAULTS.label_column:
                return None
            raise DataError(f"{where} has no column {column!r}; its columns are {_shown(names)}: set data.label_column.")
        labels = integer_labels(rows.select_columns([column]).with_format("arrow")[:][column], column, where)
        return None if are_hidden(labels) else labels

    def _classes(self, rows: Any, labels: Labels, where: str) -> tuple[str, ...]:
        names = tuple(getattr(rows.features[self.options.label_column], "names", ()))
        classes = names or numbered_classes(labels)
        check_labels(labels, classes, where)
        return classes


def _root(options: ArrowOptions) -> Path:
    root = options.root
    if root is None:
        raise DataError(f"data set 'arrow' needs --data-root FOLDER, {_LAYOUT}.")
    if not root.is_dir():
        raise DataError(f"folder {root.absolute()} ({root_given(options)}) is not there; it should be {_LAYOUT}.")
    return root.absolute()


def _opened(root: Path) -> dict[str, Any]:
    """The splits in a folder; a data set without splits is all ``train``.

    Raises:
        DataError: If ``datasets`` is not installed, or the folder holds something else.
    """
    try:
        import datasets
    except ImportError:
        raise DataError("data set 'arrow' needs Hugging Face datasets: pip install 'ssl-dc[datasets]'.") from None
    try:
        opened = datasets.load_from_disk(str(root), keep_in_memory=False)
    except Exception as error:  # a damaged folder may raise anything: FileNotFoundError, ValueError, ArrowInvalid, ...
        raise DataError(f"folder {root} cannot be read; it should be {_LAYOUT} ({name_of(str(error))}).") from error
    splits = dict(opened) if isinstance(opened, dict) else {TRAIN: opened}
    return splits if len(splits) > 1 else {TRAIN: next(iter(splits.values()))}


def _holds_images(feature: Any) -> bool:
    """Whether a column holds images, structs {bytes, path}, or bytes."""
    import datasets

    inner = feature.get("bytes") if isinstance(feature, dict) else feature
    return isinstance(inner, datasets.Image) or getattr(inner, "dtype", None) in ("binary", "large_binary")


def _shown(names: list[str]) -> str:
    return ", ".join(name_of(name) for name in names[:20])
