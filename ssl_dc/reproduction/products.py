"""Make the table or figure of a request: take its runs one by one, then write it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

from ssl_dc.reproduction.figures import Figure
from ssl_dc.reproduction.plan import PlannedRun
from ssl_dc.reproduction.requests import FigureRequest, Request
from ssl_dc.reproduction.runner import Store
from ssl_dc.reproduction.tables import Table
from ssl_dc.reproduction.written import Written
from ssl_dc.trackers.base import Watcher


class Product(Protocol):
    """A table or figure that is being made."""

    def check(self) -> None:
        """Check that it can be made, before anything is trained.

        Raises:
            ConfigError: If a package that it needs is not installed.
        """

    def has(self, run: PlannedRun) -> bool:
        """Whether a run is trained and measured."""

    def add(self, run: PlannedRun, watchers: Iterable[Watcher], say: Callable[[str], None]) -> None:
        """Add a run. Train and evaluate what is missing."""

    def write(self) -> Written:
        """Write the table or figure beside its runs."""


def product_of(request: Request, store: Store, call: str) -> Product:
    """The table or figure of a request.

    Args:
        request: The request.
        store: The runs.
        call: The command, which stands under the title of a table.
    """
    return Figure(request, store) if isinstance(request, FigureRequest) else Table(request, store, call)
