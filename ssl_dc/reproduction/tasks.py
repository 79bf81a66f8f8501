"""The runs of a table or figure, as tasks that workers share."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from ssl_dc.progress.progress import Progress
from ssl_dc.reproduction.plan import PlannedRun
from ssl_dc.reproduction.products import product_of
from ssl_dc.reproduction.requests import FigureRequest, Request
from ssl_dc.reproduction.runner import Store


@dataclass(frozen=True)
class RunTask:
    """A run of a table, with its measurement, or a run of a figure.

    Attributes:
        request: The table or figure.
        output: The folder of its runs.
        call: The command.
        run: The run.
    """

    request: Request
    output: Path
    call: str
    run: PlannedRun

    @property
    def name(self) -> str:
        """The name of the run."""
        return self.run.name

    def is_done(self) -> bool:
        """Whether the run is trained, and measured if it is one of a table."""
        return product_of(self.request, Store(self.output), self.call).has(self.run)

    def do(self) -> None:
        """Train the run, and measure it for a table. A figure lays the features out when it is drawn."""
        store = Store(self.output)
        if isinstance(self.request, FigureRequest):
            store.trained(self.run, [Progress()], _say)
        else:
            product_of(self.request, store, self.call).add(self.run, [Progress()], _say)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
