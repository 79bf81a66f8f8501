"""The watcher that shows progress, in the way that suits the place."""

from __future__ import annotations

import os
import sys
from typing import Literal

from ssl_dc.errors import ConfigError
from ssl_dc.launch import is_first_process
from ssl_dc.progress.display import Display
from ssl_dc.progress.figures import Figures
from ssl_dc.trackers.base import StepMetrics, Watcher


class Progress(Watcher):
    """Shows a person how a training goes on.

    In a terminal and in a notebook these are two lines, renewed in place. The first has the step, a bar, the time left and
    images a second; the second has the loss with its terms, what the gates cost, and the rank of the embeddings. Elsewhere,
    as in a file, a line is printed on standard error every few seconds. Only the first process of a launch shows anything.

    Args:
        note: A message to show once, when training begins.
    """

    def __init__(self, note: str = "") -> None:
        self._note = note
        self._figures = Figures()
        self._display = _display(self._figures)

    def on_phase(self, name: str) -> None:
        """Name the phase."""
        self._figures.begin_phase(name)
        self._display.phase_begins()

    def on_phase_end(self) -> None:
        """Name it no more."""
        self._figures.phase = ""
        self._display.phase_ends()

    def on_batch_size(self, images: int) -> None:
        """Know how many images a step takes."""
        self._figures.batch_size = images

    def on_start(self, step: int, total_steps: int) -> None:
        """Show the bar."""
        self._figures.begin(step, total_steps)
        self._display.training_begins()
        if self._note:
            self.on_message(self._note)

    def on_step(self, metrics: StepMetrics) -> None:
        """Keep the metrics for the second line."""
        self._figures.metrics = metrics

    def on_step_end(self, step: int) -> None:
        """Move the bar."""
        self._figures.take(step)
        self._display.step_taken()

    def on_message(self, text: str) -> None:
        """Show the message above the bar."""
        self._display.message(text)

    def on_end(self) -> None:
        """Leave the bar as it is."""
        self._figures.end()
        self._display.training_ends()


def progress_watchers(progress: bool | Literal["auto"]) -> list[Watcher]:
    """The watchers that a choice of progress means: one, or none. ``auto`` is one in a notebook, and none in a script.

    Raises:
        ConfigError: If it is none of ``True``, ``False`` and ``"auto"``.
    """
    from ssl_dc.progress.notebook import in_a_notebook

    if progress not in (True, False, "auto"):
        raise ConfigError(f"progress must be True, False or 'auto', not {progress!r}")
    return [Progress()] if progress is True or (progress == "auto" and in_a_notebook()) else []


def _display(figures: Figures) -> Display:
    from ssl_dc.progress.lines import Lines
    from ssl_dc.progress.notebook import Notebook, in_a_notebook

    if not is_first_process():
        return Display(figures)
    if in_a_notebook():
        return Notebook(figures)
    if sys.stderr.isatty() and os.environ.get("TERM", "").lower() not in ("dumb", "unknown"):
        from ssl_dc.progress.terminal import Terminal

        return Terminal(figures)
    return Lines(figures)
