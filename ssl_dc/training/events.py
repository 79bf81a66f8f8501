"""What happens during training, for those who only watch: progress, metrics files, trackers."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class StepMetrics:
    """What is known after an optimiser step.

    Attributes:
        step: Number of steps taken so far, from 1.
        total_steps: Steps of the whole run.
        epoch: The epoch that the step belongs to, from 1.
        values: Named numbers; the same for the same config on the same machine.
        images_per_second: Speed since the last report; not the same twice.
    """

    step: int
    total_steps: int
    epoch: int
    values: Mapping[str, float]
    images_per_second: float


class Watcher:
    """Told of what happens in training; overrides what it cares for. Only the main process has watchers."""

    def on_start(self, step: int, total_steps: int) -> None:
        """Training begins, or goes on, after ``step`` steps."""

    def on_step(self, metrics: StepMetrics) -> None:
        """A step was taken whose metrics are due."""

    def on_checkpoint(self, step: int) -> None:
        """A resume point was written."""

    def on_message(self, text: str) -> None:
        """Something worth a line to the user."""

    def on_end(self) -> None:
        """Training ends, also by an error."""


class Stopwatch:
    """Measures how many things were done a second since it was last asked."""

    def __init__(self) -> None:
        self._time = time.monotonic()
        self._count: int | None = None

    def rate(self, count: int) -> float:
        """Things a second, ``count`` having been done in all; 0 when first asked."""
        now = time.monotonic()
        elapsed, done = now - self._time, count - (self._count if self._count is not None else count)
        self._time, self._count = now, count
        return done / elapsed if elapsed > 0 else 0.0
