"""From a request to what it asks for: run by run, then written."""

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
    """A table or figure in the making."""

    def check(self) -> None:
        """Check, before anything is trained, that it can be made.

        Raises:
            ConfigError: If something that it takes is not installed.
        """

    def has(self, run: PlannedRun) -> bool:
        """Whether nothing is left to train or to measure of a run."""

    def add(self, run: PlannedRun, watchers: Iterable[Watcher], say: Callable[[str], None]) -> None:
        """Take up a run; what is missing of it is trained and evaluated."""

    def write(self) -> Written:
        """Write it beside the runs that were taken up."""


def product_of(request: Request, store: Store, call: str) -> Product:
    """The product that a request asks for, to be made in a folder of runs.

    Args:
        request: What is asked for.
        store: The runs.
        call: The command that asks for it.
    """
    return Figure(request, store) if isinstance(request, FigureRequest) else Table(request, store, call)
