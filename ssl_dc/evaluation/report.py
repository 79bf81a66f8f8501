"""Results: each can be had as plain values, as tables for people and, for some, as a picture."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ssl_dc.errors import ConfigError

if TYPE_CHECKING:
    from matplotlib.figure import Figure


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


class Report(ABC):
    """A result: of a training, an evaluation protocol, a cost, a measurement."""

    @abstractmethod
    def as_json(self) -> dict[str, Any]:
        """Everything that is in the report, as plain values."""

    @abstractmethod
    def tables(self) -> Sequence[ReportTable]:
        """The report as tables for people."""

    def draw(self) -> Figure:
        """The report as a picture. A protocol's options say whether its report has one.

        Raises:
            ConfigError: If the report has no picture.
        """
        raise ConfigError(f"a {type(self).__name__} has no picture")
