"""A page that follows a training: it is written again every few seconds until no run trains any more."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from ssl_dc.reporting.measured import ReportOptions
from ssl_dc.reporting.page import ReportPage
from ssl_dc.reporting.recorded import RunLike, recorded_runs
from ssl_dc.reporting.report import page_of
from ssl_dc.trackers.base import Watcher


def follow(
    runs: RunLike | Sequence[RunLike],
    output: Path,
    options: ReportOptions,
    *,
    every: float,
    watchers: Sequence[Watcher] = (),
    wait: Callable[[float], None] = time.sleep,
) -> ReportPage:
    """Write the page of runs again and again while one of them trains, and a last time with all that a report has.

    While a run trains an opened page loads itself again, and features are computed of no run: that would slow the training.

    Args:
        runs: The runs.
        output: Where the page is written.
        options: What is measured at the end, and how.
        every: Seconds between two pages.
        watchers: Told of phases and of how far the runs are.
        wait: Lets so many seconds pass.

    Returns:
        The last page.

    Raises:
        ConfigError: If there is no run.
        RunError: If a file of a run cannot be read, or the page cannot be written.
    """
    told = ""
    while True:
        recorded = recorded_runs(runs)
        training = [run for run in recorded if run.trains]
        if not training:
            page = page_of(recorded, options, watchers)
            page.save(output)
            return page
        page_of(recorded, options, refresh_seconds=every).save(output)
        said = "; ".join(f"{run.label}: {run.state}" for run in training)
        for watcher in watchers if said != told else ():
            watcher.on_message(said)
        told = said
        wait(every)
