"""Progress of a training on standard error: a bar in a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from contextlib import suppress

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ssl_dc.printable import printable
from ssl_dc.trackers.base import StepMetrics, Watcher

SECONDS_BETWEEN_LINES = 5.0


def make_progress(note: str = "") -> Watcher:
    """The progress that suits standard error. The note is shown once, when training begins."""
    return ProgressBar(note) if sys.stderr.isatty() else ProgressLines(note)


def described(values: Mapping[str, float], images_per_second: float) -> str:
    """The metrics of a step in one line: loss and its terms, learning rate, cost, collapse, speed."""
    terms = " ".join(
        f"{name.removeprefix('terms/')} {value:.3g}" for name, value in values.items() if name.startswith("terms/")
    )
    cost = f" cost {values['cost_ratio']:.3f}" if "cost_ratio" in values else ""
    paid = f" (evaluated {values['evaluated_cost_ratio']:.3f})" if "evaluated_cost_ratio" in values else ""
    return (
        f"loss {values['loss']:.3f} [{terms}] lr {values['lr']:.2e}{cost}{paid}"
        f" rank {values['effective_rank']:.0f} {images_per_second:.0f} images/s"
    )


class ProgressBar(Watcher):
    """A bar with the time left, and the latest metrics below it.

    Args:
        note: Shown before the first step.
    """

    def __init__(self, note: str = "") -> None:
        self._note = note
        self._progress = Progress(
            TextColumn("step"),
            MofNCompleteColumn(),
            BarColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.description}"),
            console=Console(stderr=True),
        )

    def on_start(self, step: int, total_steps: int) -> None:
        """Show the bar."""
        self._task = self._progress.add_task("", total=total_steps, completed=step)
        self._progress.start()
        if self._note:
            self.on_message(self._note)

    def on_step(self, metrics: StepMetrics) -> None:
        """Move the bar."""
        text = described(metrics.values, metrics.images_per_second)
        self._progress.update(self._task, completed=metrics.step, description=escape(printable(text)))

    def on_message(self, text: str) -> None:
        """Print a line above the bar."""
        self._progress.console.print(printable(text), markup=False, highlight=False)

    def on_end(self) -> None:
        """Leave the bar as it is."""
        self._progress.stop()


class ProgressLines(Watcher):
    """A line every few seconds, and one at the end.

    Args:
        note: Shown before the first step.
    """

    def __init__(self, note: str = "") -> None:
        self._note = note

    def on_start(self, step: int, total_steps: int) -> None:
        """Say where training begins."""
        self._began, self._first, self._last_line = time.monotonic(), step, 0.0
        if self._note:
            self._say(self._note)
        self._say(f"training from step {step} to {total_steps}")

    def on_step(self, metrics: StepMetrics) -> None:
        """Print a line if it is time."""
        now = time.monotonic()
        if now - self._last_line < SECONDS_BETWEEN_LINES and metrics.step < metrics.total_steps:
            return
        self._last_line = now
        left = (now - self._began) / max(1, metrics.step - self._first) * (metrics.total_steps - metrics.step)
        text = described(metrics.values, metrics.images_per_second)
        self._say(f"step {metrics.step}/{metrics.total_steps} epoch {metrics.epoch} {text} left {left:.0f} s")

    def on_message(self, text: str) -> None:
        """Print the message."""
        self._say(text)

    def _say(self, text: str) -> None:
        with suppress(OSError):  # a full disk behind standard error must not end a training
            print(printable(text), file=sys.stderr, flush=True)
