"""Progress in a terminal: two lines below everything else, drawn by a thread of their own."""

from __future__ import annotations

import os
import sys
import weakref
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.text import Text

from ssl_dc.printable import printable
from ssl_dc.progress.display import Display
from ssl_dc.progress.figures import Figures
from ssl_dc.progress.wording import first_line, phase_line, second_line, shortened

DRAWINGS_PER_SECOND = 10
ECHO = 2
"""Columns left free at the right, where terminals write ``^C``: lines that are full would wrap and spoil the display."""


class Terminal(Display):
    """Draws some times a second whatever the figures are then, so that a training spends nothing on it."""

    def __init__(self, figures: Figures) -> None:
        super().__init__(figures)
        self._console = SteadyConsole(stderr=True, force_terminal=True, force_jupyter=False)
        self._live: Live | None = None
        _OPEN.add(self)

    def phase_begins(self) -> None:
        """Show its name, as the second line if training is under way."""
        if not self._figures.running:
            self._open()

    def phase_ends(self) -> None:
        """Remove its name."""
        if not self._figures.running:
            self._close(keep=False)

    def training_begins(self) -> None:
        """Show the lines."""
        self._open()

    def training_ends(self) -> None:
        """Leave the lines as they are."""
        self._close(keep=True)

    def message(self, text: str) -> None:
        """Print it above the lines."""
        with suppress(OSError):
            self._console.print(printable(text), markup=False, highlight=False)

    def leave(self) -> None:
        """Give the standard streams back in a process that was forked: only the first process draws."""
        if self._live is not None:
            self._live._disable_redirect_io()
            self._live = None

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        width = max(1, options.max_width - ECHO)
        figures = self._figures
        if not figures.total_steps or (figures.phase and not figures.running):
            yield _line(shortened(phase_line(figures), width))
            return
        first = first_line(figures, width)
        yield _line(first.left, end=" " if first.right else "\n")
        if first.bar:
            yield ProgressBar(figures.total_steps, figures.step, width=first.bar)
            yield _line(" ", end="")
        if first.right:
            yield _line(first.right)
        yield _line(second_line(figures, width))

    def _open(self) -> None:
        self._close(keep=False)
        # What others print on the same terminal goes above the lines; elsewhere it is left alone.
        shared = sys.stdout.isatty()
        self._live = Live(
            self, console=self._console, refresh_per_second=DRAWINGS_PER_SECOND, redirect_stdout=shared, transient=True
        )
        with suppress(OSError):  # the terminal may be gone, and training goes on
            self._live.start(refresh=True)

    def _close(self, keep: bool) -> None:
        if self._live is not None:
            self._live.transient = not keep
            with suppress(OSError):
                self._live.stop()
            self._live = None


class SteadyConsole(Console):
    """A console that does not hide the cursor, so that a killed training leaves a terminal that can be used."""

    def show_cursor(self, show: bool = True) -> bool:  # noqa: ARG002  # as rich has it
        """Leave the cursor as it is."""
        return False


def _line(text: str, end: str = "\n") -> Text:
    return Text(text, end=end, no_wrap=True, overflow="crop")


_OPEN: weakref.WeakSet[Terminal] = weakref.WeakSet()


def _leave_all(*_: Any) -> None:
    for terminal in _OPEN:
        terminal.leave()


if hasattr(os, "register_at_fork"):
    # A worker that warns would else wait for the console's lock, if the drawing thread held it when the worker was forked.
    os.register_at_fork(after_in_child=_leave_all)
