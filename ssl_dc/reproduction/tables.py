"""Tables of the paper, with our numbers beside the paper's."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from ssl_dc.reproduction.comparison import Comparison, write_table
from ssl_dc.reproduction.plan import PlannedRun
from ssl_dc.reproduction.requests import TableRequest
from ssl_dc.reproduction.runner import Measure, Measurement, Store
from ssl_dc.trackers.base import Watcher


class Table:
    """A table of runs and their results.

    Args:
        request: The table and its runs.
        store: The runs and their results.
        call: The command, which stands under the title.
    """

    def __init__(self, request: TableRequest, store: Store, call: str) -> None:
        self.request = request
        self.store = store
        self.call = call
        self.measure = Measure(request.spec.metric, request.to, request.to_root)
        self._measurements: list[Measurement] = []

    def check(self) -> None:
        """A table needs no package that could be missing."""

    def has(self, run: PlannedRun) -> bool:
        """Whether the results of a run are known."""
        return self.store.known(run, self.measure) is not None

    def add(self, run: PlannedRun, watchers: Iterable[Watcher], say: Callable[[str], None]) -> None:
        """Measure a run."""
        self._measurements.append(self.store.measure(run, self.measure, watchers, say))

    def write(self) -> Comparison:
        """Write the table as Markdown, CSV and HTML."""
        return write_table(self.store.folder, self.request, self._measurements, self.call)
