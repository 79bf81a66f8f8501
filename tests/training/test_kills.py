"""A training that is killed (-9) again and again, also while it saves, ends as if nothing had happened."""

from __future__ import annotations

import json
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

SETTINGS: dict[str, Any] = {
    "data.limit": 64,
    "data.test_limit": 40,
    "data.image_size": 8,
    "backbone.width": 4,
    "objective.expander_width": 16,
    "training.batch_size": 16,
    "training.accumulation": 2,
    "training.workers": 0,
    "training.log_every": 1,
    "training.checkpoint_every": 1,
    "training.keep_checkpoints": 1,
}
"""Four steps an epoch, each saved, the one before dropped at once: most of the time goes into saving."""


def start(folder: Path, epochs: int) -> subprocess.Popen[bytes]:
    words = [word for key, value in SETTINGS.items() for word in (f"--{key}", str(value))]
    new = ["--data", "digits", *words, "--epochs", str(epochs), "--output", str(folder)]
    begun = (folder / "config.json").is_file()
    return subprocess.Popen(
        [sys.executable, "-m", "ssl_dc", "train", *(["--resume", str(folder)] if begun else new), "--json"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def half_saved(folder: Path) -> set[tuple[str, int]]:
    """The resume points that are being written, or were when a process was killed."""
    return {(path.name, path.stat().st_ino) for path in (folder / "checkpoints").glob(".step-*.partial") if path.exists()}


def seconds_of(folder: Path, epochs: int) -> float:
    """Trains without interruption."""
    began = time.monotonic()
    process = start(folder, epochs)
    _, said = process.communicate(timeout=300)
    assert process.returncode == 0, said.decode()
    return time.monotonic() - began


def kill(folder: Path, epochs: int, reached: Callable[[], bool]) -> None:
    """Starts or resumes the run, and kills it when something is reached."""
    process = start(folder, epochs)
    while process.poll() is None and not reached():
        time.sleep(0.0005)
    process.kill()
    _, said = process.communicate(timeout=60)
    # it may have come to its end before
    assert process.returncode in (0, -signal.SIGKILL), said.decode()
    assert b"Traceback" not in said, said.decode()


def after(seconds: float) -> Callable[[], bool]:
    ends = time.monotonic() + seconds
    return lambda: time.monotonic() >= ends


def in_a_saving_after(seconds: float, folder: Path) -> Callable[[], bool]:
    ends, before = time.monotonic() + seconds, half_saved(folder)
    return lambda: time.monotonic() >= ends and bool(half_saved(folder) - before)


def in_the_evaluation(folder: Path, step: int, seconds: float) -> Callable[[], bool]:
    """So many seconds after the last step was saved."""
    since: list[float] = []

    def reached() -> bool:
        if not since and (folder / "checkpoints" / f"step-{step:08d}").exists():
            since.append(time.monotonic())
        return bool(since) and time.monotonic() - since[0] >= seconds

    return reached


def assert_goes_on_after(kills: int, epochs: int, tmp_path: Path, seed: int, span: float) -> Counter[str]:
    """Kills a run, half the times at any moment of a span from its start, half in the next saving after one.

    Once more while it evaluates; then it is let run to its end.

    Args:
        span: As a share of the time of a whole run.
    """
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    seconds = span * seconds_of(whole, epochs)
    last = json.loads((whole / "metrics.jsonl").read_text().splitlines()[-1])["step"]
    draw = random.Random(seed)
    counted: Counter[str] = Counter()
    for number in range(kills):
        moment, before = draw.uniform(0, seconds), half_saved(killed)
        kill(killed, epochs, in_a_saving_after(moment, killed) if number % 2 else after(moment))
        counted["kills"] += 1
        counted["in a saving"] += bool(half_saved(killed) - before)
        counted["before the first resume point"] += not any((killed / "checkpoints").glob("step-*"))
        assert not (killed / "result.json").exists(), "the run came to its end before it was killed often enough"
    kill(killed, epochs, in_the_evaluation(killed, last, draw.uniform(0, 1)))
    seconds_of(killed, epochs)
    for name in ("model.safetensors", "metrics.jsonl", "result.json"):
        assert (killed / name).read_bytes() == (whole / name).read_bytes(), name
    for name in ("learner.safetensors", "optimizer.safetensors", "progress.json"):
        at = Path("checkpoints", f"step-{last:08d}", name)
        assert (killed / at).read_bytes() == (whole / at).read_bytes(), name
    return counted


def test_a_run_that_is_killed_ends_the_same(tmp_path: Path) -> None:
    counted = assert_goes_on_after(2, 10, tmp_path, seed=0, span=0.5)
    assert counted["in a saving"] >= 1


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_run_that_is_killed_twenty_times_ends_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    counted = assert_goes_on_after(20, 250, tmp_path, seed=1, span=0.12)
    with capsys.disabled():
        print(f"\n{dict(counted)}")
    assert counted["kills"] == 20
    assert counted["in a saving"] >= 5
