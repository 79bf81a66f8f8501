"""Progress in a file or a pipe: a line now and then, fewer the longer it takes."""

from __future__ import annotations

import sys
import threading
import time
from contextlib import suppress

from ssl_dc.printable import printable
from ssl_dc.progress.display import Display
from ssl_dc.progress.figures import Figures
from ssl_dc.progress.wording import log_line

SECONDS_BETWEEN_LINES = 5.0
MOST_SECONDS_BETWEEN_LINES = 60.0
SHARE_BETWEEN_LINES = 0.02
"""The time between two lines, as a share of the time that training has taken, between the two bounds above."""

SECONDS_BEFORE_NAMED = 10.0
"""A phase that ends sooner is not named."""


class Lines(Display):
    """A line at the first step, every few seconds, and at the end. A phase that takes long is named."""

    def __init__(self, figures: Figures) -> None:
        super().__init__(figures)
        self._timer: threading.Timer | None = None
        self._last_line = 0.0

    def phase_begins(self) -> None:
        """Name it, unless it ends soon."""
        self.phase_ends()
        self._timer = threading.Timer(SECONDS_BEFORE_NAMED, self.message, (f"{self._figures.phase} ...",))
        self._timer.daemon = True
        self._timer.start()

    def phase_ends(self) -> None:
        """Name it no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def training_begins(self) -> None:
        """Say where."""
        what = self._figures.phase or "training"
        self.message(f"{what} from step {self._figures.step} to {self._figures.total_steps}")

    def step_taken(self) -> None:
        """Print a line if it is time."""
        now = time.monotonic()
        pause = min(MOST_SECONDS_BETWEEN_LINES, max(SECONDS_BETWEEN_LINES, SHARE_BETWEEN_LINES * self._figures.seconds))
        if self._figures.steps_here == 1 or now - self._last_line >= pause:
            self._print(now)

    def training_ends(self) -> None:
        """Print the last step, and how long it took."""
        if self._figures.steps_here:
            self._print(time.monotonic())

    def message(self, text: str) -> None:
        """Print the message."""
        with suppress(OSError):  # a full disk behind standard error must not end a training
            print(printable(text), file=sys.stderr, flush=True)

    def _print(self, now: float) -> None:
        self._last_line = now
        self.message(log_line(self._figures))
