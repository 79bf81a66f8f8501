"""What happens during training, for those who only watch: progress, metrics files, trackers."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any


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
    """Told of what happens in training; overrides what it cares for. Only the main process has watchers.

    A watcher only watches: nothing that it does or returns changes what is trained.
    """

    def on_start(self, step: int, total_steps: int) -> None:
        """Training begins, or goes on, after ``step`` steps."""

    def on_step(self, metrics: StepMetrics) -> None:
        """A step was taken whose metrics are due, every ``training.log_every`` steps."""

    def on_step_end(self, step: int) -> None:
        """A step was taken, the ``step``-th, from 1; told of every one."""

    def on_epoch_end(self, epoch: int) -> None:
        """The last step of an epoch was taken, the ``epoch``-th, from 1."""

    def on_checkpoint(self, step: int) -> None:
        """A resume point was written."""

    def on_message(self, text: str) -> None:
        """Something worth a line to the user."""

    def on_end(self) -> None:
        """Training ends, also by an error."""


class Guarded(Watcher):
    """A watcher whose failure does not end a training: it is told once, and the watcher is left out from there on.

    Args:
        watcher: What is guarded.
        label: What the user knows it by.
        say: Tells the user.
    """

    def __init__(self, watcher: Watcher, label: str, say: Callable[[str], None]) -> None:
        self._watcher: Watcher | None = watcher
        self._label, self._say = label, say

    def on_start(self, step: int, total_steps: int) -> None:
        """Hand on."""
        self._tell("on_start", step, total_steps)

    def on_step(self, metrics: StepMetrics) -> None:
        """Hand on."""
        self._tell("on_step", metrics)

    def on_step_end(self, step: int) -> None:
        """Hand on."""
        self._tell("on_step_end", step)

    def on_epoch_end(self, epoch: int) -> None:
        """Hand on."""
        self._tell("on_epoch_end", epoch)

    def on_checkpoint(self, step: int) -> None:
        """Hand on."""
        self._tell("on_checkpoint", step)

    def on_message(self, text: str) -> None:
        """Hand on."""
        self._tell("on_message", text)

    def on_end(self) -> None:
        """Hand on."""
        self._tell("on_end")

    def _tell(self, event: str, *about: Any) -> None:
        try:
            if self._watcher is not None:
                getattr(self._watcher, event)(*about)
        except Exception as error:  # a stranger's watcher may raise anything
            self._watcher = None
            self._say(f"{self._label} is left out from here on: {event} raised {type(error).__name__}: {error}")


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
