"""Progress in a file: a few lines."""

from __future__ import annotations

import re
import threading
from itertools import pairwise

import pytest

from helpers.clock import StoppedClock
from ssl_dc.progress.figures import Figures
from ssl_dc.progress.lines import Lines
from ssl_dc.progress.progress import Progress
from ssl_dc.trackers.base import StepMetrics


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> StoppedClock:
    clock = StoppedClock(monkeypatch, "ssl_dc.progress.figures")
    monkeypatch.setattr("ssl_dc.progress.lines.time", clock.module)
    return clock


def lines_of_a_training(clock: StoppedClock, capsys: pytest.CaptureFixture[str], steps: int, seconds: float) -> list[str]:
    progress = Progress()
    progress.on_batch_size(32)
    progress.on_start(0, steps)
    for step in range(1, steps + 1):
        clock.pass_by(seconds)
        if step % 10 == 0:
            progress.on_step(StepMetrics(step, steps, 1 + step // 10, {"loss": 1.0 * step, "terms/inv": 2.0}, 0.0))
        progress.on_step_end(step)
    progress.on_end()
    return capsys.readouterr().err.splitlines()


def test_there_is_a_line_at_the_first_step_every_few_seconds_and_at_the_end(
    clock: StoppedClock, capsys: pytest.CaptureFixture[str]
) -> None:
    said = lines_of_a_training(clock, capsys, steps=23, seconds=1.0)
    assert said == [
        "training from step 0 to 23",
        "step 1/23  left 0:22  32 images/s",
        "step 6/23  left 0:17  32 images/s",
        "step 11/23 epoch 2  loss 10 [inv 2] (of step 10)  left 0:12  32 images/s",
        "step 16/23 epoch 2  loss 10 [inv 2] (of step 10)  left 0:07  32 images/s",
        "step 21/23 epoch 3  loss 20 [inv 2] (of step 20)  left 0:02  32 images/s",
        "step 23/23 epoch 3  loss 20 [inv 2] (of step 20)  took 0:23  32 images/s",
    ]


def test_a_long_training_says_less_often(clock: StoppedClock, capsys: pytest.CaptureFixture[str]) -> None:
    said = lines_of_a_training(clock, capsys, steps=24 * 3600, seconds=1.0)
    steps = [int(found[1]) for line in said if (found := re.match(r"step (\d+)/", line))]
    pauses = [later - earlier for earlier, later in pairwise(steps[:-1])]
    assert pauses[:10] == [5] * 10
    assert set(pauses[-1000:]) == {60}
    assert pauses == sorted(pauses)


def test_a_phase_is_named_only_if_it_lasts(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    timers: list[tuple[float, threading.Timer]] = []

    class Timer(threading.Timer):
        def start(self) -> None:
            timers.append((self.interval, self))

    monkeypatch.setattr("ssl_dc.progress.lines.threading.Timer", Timer)
    figures = Figures()
    lines = Lines(figures)
    for name in ("reading the pictures", "evaluating"):
        figures.begin_phase(name)
        lines.phase_begins()
        if name == "reading the pictures":
            lines.phase_ends()
    assert [interval for interval, _ in timers] == [10.0, 10.0]
    for _, timer in timers:
        timer.interval = 0
        timer.run()
    assert capsys.readouterr().err == "evaluating ...\n"


def test_a_full_disk_behind_standard_error_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr", open("/dev/full", "w"))  # noqa: SIM115  # it cannot be closed
    progress = Progress("note")
    progress.on_start(0, 2)
    progress.on_step_end(1)
    progress.on_end()


def test_only_the_first_process_of_a_launch_says_anything(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RANK", "1")
    progress = Progress("note")
    progress.on_start(0, 2)
    progress.on_step_end(1)
    progress.on_message("message")
    progress.on_end()
    assert capsys.readouterr().err == ""
