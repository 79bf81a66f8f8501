"""What a progress display knows of a training: where it is, how fast it goes, and what was measured last."""

from __future__ import annotations

import math
import time

from ssl_dc.trackers.base import COMPILING, StepMetrics

MEMORY_SECONDS = 10.0
"""The time constant of the mean speed: what is this long ago weighs a third of what is new."""
LARGEST_WEIGHT = 0.1
"""The weight of one step in the mean speed, at most, so that slow steps are averaged too."""


class Figures:
    """The state of a training, as far as it was told.

    Attributes:
        phase: What happens now besides steps; empty if nothing does.
        step: Steps taken so far, from 0.
        total_steps: Steps of the whole run; 0 before training begins.
        steps_here: Steps that were taken since training began or continued.
        batch_size: Images that a step takes; None if that is not known.
        metrics: The latest metrics; None before the first.
        running: Whether training has begun and not ended.
    """

    def __init__(self) -> None:
        self.phase = ""
        self.step = self.total_steps = self.steps_here = 0
        self.batch_size: int | None = None
        self.metrics: StepMetrics | None = None
        self.running = False
        self._phase_began = self._began = self._last = self._ended = 0.0
        self._pace = Pace()
        self._timed = 0
        self._compiles = False

    def begin_phase(self, name: str) -> None:
        """Something begins that is not a step."""
        self._phase_began = time.monotonic()
        self.phase = name
        self._compiles = self._compiles or name == COMPILING

    def begin(self, step: int, total_steps: int) -> None:
        """Training begins, or continues after ``step`` steps."""
        self._began = self._last = time.monotonic()
        self.step, self.total_steps, self.steps_here, self.metrics = step, total_steps, 0, None
        self._pace = Pace()
        self._timed, self._compiles = 0, False
        self.running = True

    def take(self, step: int) -> None:
        """A step was taken.

        The first says little of the others, and does not count once there are others. One that was compiled says nothing.
        """
        now = time.monotonic()
        if not self._compiles:
            if self._timed == 1:
                self._pace = Pace()
            self._pace.add(now - self._last)
            self._timed += 1
        self._last, self._compiles = now, False
        self.step = step
        self.steps_here += 1

    def end(self) -> None:
        """Training ends."""
        self._ended = time.monotonic()
        self.running = False

    @property
    def phase_seconds(self) -> float:
        """How long the present phase has taken."""
        return time.monotonic() - self._phase_began

    @property
    def seconds(self) -> float:
        """How long training has taken, or took."""
        return (time.monotonic() if self.running else self._ended) - self._began

    @property
    def seconds_left(self) -> float | None:
        """How long the remaining steps will take; None before the first step of this call."""
        mean = self._pace.mean
        if mean is None:
            return None
        since = time.monotonic() - self._last if self.running else 0.0
        return max(0.0, mean * (self.total_steps - self.step) - min(since, mean))

    @property
    def images_per_second(self) -> float | None:
        """The mean speed, in which recent steps weigh more; None while it is not known."""
        mean = self._pace.mean
        return self.batch_size / mean if self.batch_size and mean else None


class Pace:
    """The mean duration of a step, in which recent steps weigh more: an exponential mean that does not favour its start."""

    def __init__(self) -> None:
        self._sum = self._weight = 0.0

    def add(self, seconds: float) -> None:
        """One more step took this long."""
        weight = min(LARGEST_WEIGHT, max(1e-6, 1 - math.exp(-seconds / MEMORY_SECONDS)))
        self._sum += weight * (seconds - self._sum)
        self._weight += weight * (1 - self._weight)

    @property
    def mean(self) -> float | None:
        """The mean in seconds; None before the first step."""
        return self._sum / self._weight if self._weight else None
