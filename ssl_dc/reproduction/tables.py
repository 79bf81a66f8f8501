"""Tables of the paper: every run measured, ours beside the paper's numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from ssl_dc.reproduction.comparison import Comparison, write_table
from ssl_dc.reproduction.plan import PlannedRun
from ssl_dc.reproduction.requests import TableRequest
from ssl_dc.reproduction.runner import Measure, Measurement, Store
from ssl_dc.trackers.base import Watcher


class Table:
    """A table in the making.

    Args:
        request: Which one, over which runs.
        store: The runs, and what they reached.
        call: The command that asks for it, which stands under its title.
    """

    def __init__(self, request: TableRequest, store: Store, call: str) -> None:
        self.request = request
        self.store = store
        self.call = call
        self.measure = Measure(request.spec.metric, request.to, request.to_root)
        self._measurements: list[Measurement] = []

    def check(self) -> None:
        """Nothing that it takes can be missing."""

    def has(self, run: PlannedRun) -> bool:
        """Whether what a run reaches is known."""
        return self.store.known(run, self.measure) is not None

    def add(self, run: PlannedRun, watchers: Iterable[Watcher], say: Callable[[str], None]) -> None:
        """Measure a run."""
        self._measurements.append(self.store.measure(run, self.measure, watchers, say))

    def write(self) -> Comparison:
        """Write it as Markdown, CSV and HTML."""
        return write_table(self.store.folder, self.request, self._measurements, self.call)
