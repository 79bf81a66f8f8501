"""Results: each can be had as plain values, as tables for people, as a data frame and, for some, as a picture."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

from ssl_dc.errors import ConfigError
from ssl_dc.printable import printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

NUMBER = re.compile(r"[-+±~]?\.?\d.*|-|", re.DOTALL)
"""How a cell of a column of numbers begins; ``-`` and nothing stand for a number that there is not."""


@dataclass(frozen=True)
class ReportTable:
    """A table for people.

    Attributes:
        title: Stands above the table.
        columns: Headings.
        rows: One text for each column. An empty text means that there is no value.
        total: A last row, set apart from the others.
        note: Text below the table; it may have several lines.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    total: Sequence[str] | None = None
    note: str = ""

    @property
    def all_rows(self) -> list[Sequence[str]]:
        """The rows, and the last row if there is one."""
        return [*self.rows, *([] if self.total is None else [self.total])]

    def has_numbers(self, column: int) -> bool:
        """Whether a column holds numbers, which are set to the right. The first column names the rows."""
        return column > 0 and all(NUMBER.fullmatch(row[column]) for row in self.all_rows)


class Report(ABC):
    """A result: of a training, an evaluation protocol, a cost, a measurement."""

    @abstractmethod
    def as_json(self) -> dict[str, Any]:
        """Everything that is in the report, as plain values."""

    @abstractmethod
    def tables(self) -> Sequence[ReportTable]:
        """The report as tables for people."""

    def records(self) -> Sequence[Mapping[str, Any]]:
        """The rows of a data frame, each a mapping from the columns' names to plain values.

        By default these are the texts of the first table. A report that has numbers gives them in full.
        """
        tables = self.tables()
        return [dict(zip(tables[0].columns, row, strict=True)) for row in tables[0].rows] if tables else []

    def to_frame(self) -> DataFrame:
        """The report as a pandas data frame.

        Raises:
            ConfigError: If pandas is not installed.
        """
        return frame(self.records())

    def _repr_html_(self) -> str:
        """The report as a notebook shows it."""
        return as_html(self.tables())

    def draw(self) -> Figure:
        """The report as a picture. A protocol's options say whether its report has one.

        Raises:
            ConfigError: If the report has no picture.
        """
        raise ConfigError(f"a {type(self).__name__} has no picture")


def frame(records: Iterable[Mapping[str, Any]]) -> DataFrame:
    """A pandas data frame of rows.

    Raises:
        ConfigError: If pandas is not installed.
    """
    try:
        import pandas
    except ImportError:
        raise ConfigError("data frames need pandas: pip install pandas") from None
    return pandas.DataFrame(list(records))


def as_html(tables: Iterable[ReportTable]) -> str:
    """Tables in HTML, with nothing in them that is not text."""
    return "\n".join(map(_table_as_html, tables))


def _table_as_html(table: ReportTable) -> str:
    aligned = ["right" if table.has_numbers(column) else "left" for column in range(len(table.columns))]

    def row(cells: Sequence[str], tags: Sequence[str]) -> str:
        shown = zip(cells, tags, aligned, strict=True)
        return f"<tr>{''.join(_cell_as_html(*each) for each in shown)}</tr>"

    heads = ['th scope="col"'] * len(table.columns)
    tags = ['th scope="row"', *["td"] * (len(table.columns) - 1)]
    head = f"<thead>{row(table.columns, heads)}</thead>" if any(table.columns) else ""
    body = f"<tbody>{''.join(row(cells, tags) for cells in table.rows)}</tbody>"
    foot = "" if table.total is None else f"<tfoot>{row(table.total, tags)}</tfoot>"
    note = f'<p style="white-space: pre-line">{_text_as_html(table.note)}</p>' if table.note else ""
    return f"<table><caption>{_text_as_html(table.title)}</caption>{head}{body}{foot}</table>{note}"


def _cell_as_html(text: str, tag: str, aligned: str) -> str:
    return f'<{tag} style="text-align: {aligned}">{_text_as_html(text)}</{tag.partition(" ")[0]}>'


def _text_as_html(text: str) -> str:
    return escape(printable(text))
