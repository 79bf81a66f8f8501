"""Labels from a column of a table: checked, and named."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ssl_dc.data.base import Labels
from ssl_dc.errors import DataError

MOST_CLASSES = 1_000_000
"""Labels are numbers of classes; a larger one than this is something else."""


def integer_labels(values: Any, column: str, where: str) -> Labels:
    """The labels in a column, (n,) int64.

    Args:
        values: Arrow's chunked array.
        column: Name of the column, for messages.
        where: What holds it, for messages.

    Raises:
        DataError: If they are not integers, if some are missing, or if one is too large for the number of a class.
    """
    import pyarrow

    if not pyarrow.types.is_integer(values.type) or values.null_count:
        missing = f", with {values.null_count} values missing" if values.null_count else ""
        raise DataError(
            f"column {column!r} of {where} is of type {values.type}{missing}; it should hold an integer for each image."
        )
    labels: npt.NDArray[np.integer[Any]] = values.to_numpy()
    if labels.max(initial=0) > MOST_CLASSES:
        raise DataError(
            f"{where} holds the label {labels.max()} in column {column!r}; labels are numbers of classes, at most"
            f" {MOST_CLASSES:,}. Without labels: name another file, or another data.label_column."
        )
    return np.asarray(labels, dtype=np.int64)


def are_hidden(labels: Labels) -> bool:
    """Whether labels are withheld, as those of test splits of competitions: all of them are below 0."""
    return bool(labels.max(initial=-1) < 0)


def numbered_classes(labels: Labels) -> tuple[str, ...]:
    """Names for classes that have none: their numbers."""
    return tuple(str(number) for number in range(int(labels.max(initial=-1)) + 1))


def check_labels(labels: Labels, classes: tuple[str, ...], where: str) -> None:
    """Check that labels are numbers of classes.

    Raises:
        DataError: If one is not.
    """
    wrong = labels[(labels < 0) | (labels >= len(classes))]
    if len(wrong):
        raise DataError(
            f"{where} holds the label {wrong[0]}; labels of {len(classes)} classes are 0 to {len(classes) - 1}."
        )
