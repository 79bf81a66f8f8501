"""A reproduced table or figure, after it is written to files."""

from __future__ import annotations

from abc import abstractmethod

from ssl_dc.evaluation.report import Report


class Written(Report):
    """A report that is also written to files."""

    @property
    @abstractmethod
    def text(self) -> str:
        """The text for standard output when another program reads it."""
