"""The events of a training, and the watchers that are told of them: progress, metrics files, trackers."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from ssl_dc.launch import is_first_process


@dataclass(frozen=True)
class StepMetrics:
    """The metrics of an optimiser step.

    Attributes:
        step: Number of steps taken so far, from 1.
        total_steps: Steps of the whole run.
        epoch: The epoch that the step belongs to, from 1.
        values: Named numbers. The same config gives the same values on the same machine.
        images_per_second: Speed since the last report. It varies from run to run.
    """

    step: int
    total_steps: int
    epoch: int
    values: Mapping[str, float]
    images_per_second: float


class Watcher:
    """Is told of the events of a training. Override the methods of the events that matter to you.

    A watcher only watches: nothing that it does or returns changes what is trained. Only the main process has watchers.
    """

    @property
    def takes_pictures(self) -> bool:
        """Whether :meth:`on_picture` is to be told. Pictures are only drawn for watchers that take them."""
        return False

    def on_phase(self, name: str) -> None:
        """Something begins that is not a step, such as reading the pictures, the first batch, or the evaluation."""

    def on_phase_end(self) -> None:
        """It has ended, normally or by an error."""

    def on_batch_size(self, images: int) -> None:
        """A step takes this many images, over all processes. This is told before training begins."""

    def on_start(self, step: int, total_steps: int) -> None:
        """Training begins, or continues after ``step`` steps."""

    def on_step(self, metrics: StepMetrics) -> None:
        """A step was taken and its metrics are due, every ``training.log_every`` steps.

        A GPU is not waited for: there this is told after the next step, or before an epoch ends or a resume point is
        written.
        """

    def on_step_end(self, step: int) -> None:
        """Step number ``step``, from 1, was taken. Every step is told."""

    def on_epoch_end(self, epoch: int) -> None:
        """The last step of epoch number ``epoch``, from 1, was taken."""

    def on_checkpoint(self, step: int) -> None:
        """A resume point was written."""

    def on_message(self, text: str) -> None:
        """There is a message for the user."""

    def on_end(self) -> None:
        """Training ends, normally or by an error."""

    def on_result(self, result: Mapping[str, Any]) -> None:
        """The trained model was evaluated. The result is what ``result.json`` holds."""

    def on_picture(self, name: str, png: bytes) -> None:
        """There is a picture of what was trained, as the content of a PNG file."""

    def on_close(self) -> None:
        """The run is over, normally or by an error: nothing is told after this. ``Trainer.fit`` does not tell it."""


class Guarded(Watcher):
    """A watcher whose failure does not end a training. The first failure is reported, and the watcher is told nothing more.

    Args:
        watcher: The watcher.
        label: Its name in messages.
        say: Shows a message to the user.
    """

    def __init__(self, watcher: Watcher, label: str, say: Callable[[str], None]) -> None:
        self._watcher: Watcher | None = watcher
        self._label, self._say = label, say

    @property
    def takes_pictures(self) -> bool:
        """Whether the watcher takes pictures, and is still told."""
        return self._watcher is not None and self._watcher.takes_pictures

    def on_phase(self, name: str) -> None:
        """Pass the event on."""
        self._tell("on_phase", name)

    def on_phase_end(self) -> None:
        """Pass the event on."""
        self._tell("on_phase_end")

    def on_batch_size(self, images: int) -> None:
        """Pass the event on."""
        self._tell("on_batch_size", images)

    def on_start(self, step: int, total_steps: int) -> None:
        """Pass the event on."""
        self._tell("on_start", step, total_steps)

    def on_step(self, metrics: StepMetrics) -> None:
        """Pass the event on."""
        self._tell("on_step", metrics)

    def on_step_end(self, step: int) -> None:
        """Pass the event on."""
        self._tell("on_step_end", step)

    def on_epoch_end(self, epoch: int) -> None:
        """Pass the event on."""
        self._tell("on_epoch_end", epoch)

    def on_checkpoint(self, step: int) -> None:
        """Pass the event on."""
        self._tell("on_checkpoint", step)

    def on_message(self, text: str) -> None:
        """Pass the event on."""
        self._tell("on_message", text)

    def on_end(self) -> None:
        """Pass the event on."""
        self._tell("on_end")

    def on_result(self, result: Mapping[str, Any]) -> None:
        """Pass the event on."""
        self._tell("on_result", result)

    def on_picture(self, name: str, png: bytes) -> None:
        """Pass the event on."""
        self._tell("on_picture", name, png)

    def on_close(self) -> None:
        """Pass the event on."""
        self._tell("on_close")

    def _tell(self, event: str, *about: Any) -> None:
        try:
            if self._watcher is not None:
                getattr(self._watcher, event)(*about)
        except Exception as error:  # a stranger's watcher may raise anything
            self._watcher = None
            self._say(f"{self._label} is left out from here on: {event} raised {type(error).__name__}: {error}")


COMPILING = "compiling the network"
"""The phase in which torch compiles the step that is being taken. It says nothing of how long other steps take."""


@contextmanager
def phase(watchers: Sequence[Watcher], name: str) -> Iterator[None]:
    """Tell watchers that a phase begins and ends. Only those of the first process of a launch are told.

    Args:
        watchers: The watchers.
        name: What happens in it, as a user is told: ``reading the pictures``.
    """
    told = watchers if is_first_process() else ()
    for watcher in told:
        watcher.on_phase(name)
    try:
        yield
    finally:
        for watcher in told:
            watcher.on_phase_end()


class Stopwatch:
    """Measures a speed since it was last asked."""

    def __init__(self) -> None:
        self._time = time.monotonic()
        self._count: int | None = None

    def rate(self, count: int) -> float:
        """Increase of ``count`` per second since the last call. The first call returns 0."""
        now = time.monotonic()
        elapsed, done = now - self._time, count - (self._count if self._count is not None else count)
        self._time, self._count = now, count
        return done / elapsed if elapsed > 0 else 0.0
