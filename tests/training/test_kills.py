"""A training that is killed (-9) again and again, also while it saves, ends as if nothing had happened."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import ssl_dc
from helpers.command_line import HANGS
from helpers.settings import TINY, as_options
from helpers.training import assert_same_files, logged, saved_steps

SETTINGS = {
    **TINY,
    "data.name": "digits",
    "training.accumulation": 2,
    "training.checkpoint_every": 1,
    "training.keep_checkpoints": 1,
}
"""Four steps an epoch, each saved, the one before dropped at once: most of the time goes into saving."""


def half_saved(folder: Path) -> set[tuple[str, int]]:
    """The resume points that are being written, or were when a process was killed."""
    return {(path.name, path.stat().st_ino) for path in (folder / "checkpoints").glob(".step-*.partial") if path.exists()}


def assert_the_same_run(one: Path, two: Path) -> None:
    last = saved_steps(two)[-1]
    point = Path("checkpoints", f"step-{last:08d}")
    files = [str(point / name) for name in ("learner.safetensors", "optimizer.safetensors", "progress.json")]
    assert_same_files(one, two, "model.safetensors", "metrics.jsonl", "result.json", *files)


def train_until_killed(folder: Path, writes: int) -> None:
    """Start or resume a run, and kill this process in its ``writes``-th call that makes a file lasting or renames it."""
    left = [writes]

    def counted(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            left[0] -= 1
            if not left[0]:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*arguments, **named)

        return call

    for name in ("fsync", "rename", "replace"):
        setattr(os, name, counted(getattr(os, name)))
    if folder.exists():
        ssl_dc.resume(folder)
    else:
        ssl_dc.train(SETTINGS, output=folder)


@pytest.mark.long
def test_a_run_that_is_killed_while_it_saves_ends_the_same(tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    ssl_dc.train(SETTINGS, output=whole)
    points = []
    for writes in (40, 3, 14, 6, 19):
        process = multiprocessing.get_context("fork").Process(target=train_until_killed, args=(killed, writes))
        process.start()
        process.join(HANGS)
        assert process.exitcode == -signal.SIGKILL
        points.append((saved_steps(killed), len(half_saved(killed))))
    assert all(steps for steps, _ in points), "a resume point is always there"
    assert points[0][0] < points[-1][0]
    assert sum(half for _, half in points) >= 3, "most are to fall into a saving"
    ssl_dc.resume(killed)
    assert_the_same_run(killed, whole)


# by hand: twenty kills from outside


def start(folder: Path, epochs: int) -> subprocess.Popen[bytes]:
    new = [*as_options(SETTINGS), "--epochs", str(epochs), "--output", str(folder)]
    begun = (folder / "config.json").is_file()
    return subprocess.Popen(
        [sys.executable, "-m", "ssl_dc", "train", *(["--resume", str(folder)] if begun else new), "--json"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )


def finish(folder: Path, epochs: int) -> None:
    """Train without interruption."""
    process = start(folder, epochs)
    _, said = process.communicate(timeout=HANGS)
    assert process.returncode == 0, said.decode()


def kill(folder: Path, epochs: int, reached: Callable[[], bool]) -> None:
    """Start or resume the run, and kill it when something is reached."""
    process = start(folder, epochs)
    while process.poll() is None and not reached():
        time.sleep(0.0005)
    process.kill()
    _, said = process.communicate(timeout=HANGS)
    # it may have come to its end before
    assert process.returncode in (0, -signal.SIGKILL), said.decode()
    assert b"Traceback" not in said, said.decode()


def step_taken(folder: Path, step: int) -> bool:
    return (folder / "metrics.jsonl").exists() and len((folder / "metrics.jsonl").read_bytes().splitlines()) >= step


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_run_that_is_killed_twenty_times_ends_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Half the times after any step of an eighth of the run, half in the next saving; once more while it evaluates."""
    kills, epochs, draw = 20, 250, random.Random(1)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    finish(whole, epochs)
    last = logged(whole)[-1]["step"]
    counted: Counter[str] = Counter()
    for number in range(kills):
        before = half_saved(killed)
        step = (len(logged(killed)) if killed.exists() else 0) + draw.randint(0, last // 40)
        in_a_saving = number % 2 == 1

        def reached(step: int = step, before: set[Any] = before, in_a_saving: bool = in_a_saving) -> bool:
            return step_taken(killed, step) and (not in_a_saving or bool(half_saved(killed) - before))

        kill(killed, epochs, reached)
        counted["kills"] += 1
        counted["in a saving"] += bool(half_saved(killed) - before)
        counted["before the first resume point"] += not saved_steps(killed)
        assert not (killed / "result.json").exists(), "the run came to its end before it was killed often enough"
    kill(killed, epochs, lambda: last in saved_steps(killed))
    finish(killed, epochs)
    assert_the_same_run(killed, whole)
    with capsys.disabled():
        print(f"\n{dict(counted)}")
    assert counted["kills"] == kills
    assert counted["in a saving"] >= 5
