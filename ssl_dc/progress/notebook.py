"""Progress in a notebook: one output of the cell, renewed in place. It needs nothing but the notebook's own IPython."""

from __future__ import annotations

import html
import sys
import time
from importlib import import_module
from typing import Any

from ssl_dc.printable import printable
from ssl_dc.progress.display import Display
from ssl_dc.progress.figures import Figures
from ssl_dc.progress.wording import first_line, phase_line, second_line

WIDTH = 100
"""Columns of a notebook's output, which does not tell its width."""
SECONDS_BETWEEN_DRAWINGS = 0.2


def in_a_notebook() -> bool:
    """Whether this code runs in a notebook's kernel."""
    ipython = sys.modules.get("IPython")  # a kernel has imported it
    shell = ipython.get_ipython() if ipython is not None else None
    return hasattr(shell, "kernel")


class Notebook(Display):
    """Two lines, and the messages above them."""

    def __init__(self, figures: Figures) -> None:
        super().__init__(figures)
        self._messages: list[str] = []
        self._handle: Any = None
        self._drawn = 0.0

    def phase_begins(self) -> None:
        """Show its name."""
        self._draw()

    def phase_ends(self) -> None:
        """Remove its name."""
        self._draw()

    def training_begins(self) -> None:
        """Show the lines."""
        self._draw()

    def step_taken(self) -> None:
        """Renew the lines, unless that was just done."""
        if time.monotonic() - self._drawn >= SECONDS_BETWEEN_DRAWINGS:
            self._draw()

    def training_ends(self) -> None:
        """Show the last step, and how long it took."""
        self._draw()

    def message(self, text: str) -> None:
        """Show it above the lines, for good."""
        self._messages.append(printable(text))
        self._draw()

    def _draw(self) -> None:
        ipython = import_module("IPython.display")
        self._drawn = time.monotonic()
        forms = {"text/plain": self._as_text(), "text/html": self._as_html()}
        if self._handle is None:
            self._handle = ipython.display(forms, raw=True, display_id=True)
        else:
            self._handle.update(forms, raw=True)

    def _as_text(self) -> str:
        return "\n".join([*self._messages, *self._lines("[{done}]")])

    def _as_html(self) -> str:
        bar = f'<progress value="{self._figures.step}" max="{self._figures.total_steps}"></progress>'
        lines = [html.escape(text) for text in self._messages]
        lines += [html.escape(text).replace(_BAR, bar) for text in self._lines(_BAR)]
        return f'<div style="white-space: pre-wrap; font-family: monospace">{"<br>".join(lines)}</div>'

    def _lines(self, bar: str) -> list[str]:
        figures = self._figures
        if not figures.total_steps:
            return [phase_line(figures)] if figures.phase else []
        first = first_line(figures, WIDTH)
        done = int(first.bar * figures.step / figures.total_steps)
        shown = bar.format(done="#" * done + "." * (first.bar - done))
        return [f"{first.left} {shown} {first.right}", second_line(figures, WIDTH)]


_BAR = "\0"
"""Stands where the bar goes: a character that no text has."""
