"""What an evaluation protocol gives back."""

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
        title: Above it.
        columns: Headings; the first column is words, the others numbers.
        rows: As many texts each as there are columns.
        total: A row set apart below the others.
        note: A line below it.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    total: Sequence[str] | None = None
    note: str = ""


class Report(ABC):
    """What a protocol says of a model."""

    @abstractmethod
    def as_json(self) -> dict[str, Any]:
        """The report as plain values: everything that is in it."""

    @abstractmethod
    def tables(self) -> Sequence[ReportTable]:
        """The report as tables for people."""

    def draw(self) -> Figure:
        """The report as a picture, where the protocol's options say that there is one.

        Raises:
            ConfigError: If there is none.
        """
        raise ConfigError(f"a {type(self).__name__} has no picture")
