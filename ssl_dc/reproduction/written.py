"""What a table or figure of the paper leaves behind when it is written."""

from __future__ import annotations

from abc import abstractmethod

from ssl_dc.evaluation.report import Report


class Written(Report):
    """A report that is written to files as well."""

    @property
    @abstractmethod
    def text(self) -> str:
        """What goes to standard output where that is no terminal, for other programs to read."""
