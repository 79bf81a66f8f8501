"""SIGTERM and Ctrl-C end a training after its step, saved; in all processes of a launch at the same one."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

import ssl_dc
from ssl_dc.cli import main
from ssl_dc.data.workers import prepare_worker
from ssl_dc.errors import Stopped
from ssl_dc.trackers.base import StepMetrics, Watcher
from ssl_dc.training.stopping import ECHO_SECONDS, StopSignals

SETTINGS: dict[str, Any] = {
    "data.limit": 64,
    "data.test_limit": 40,
    "data.image_size": 8,
    "backbone.width": 4,
    "objective.expander_width": 16,
    "training.batch_size": 16,
    "training.epochs": 4,
    "training.workers": 0,
    "training.log_every": 1,
}
"""Four epochs of four steps."""


class At(Watcher):
    """Does something when a step was taken."""

    def __init__(self, step: int, act: Callable[[], None]) -> None:
        self.step, self.act = step, act

    def on_step(self, metrics: StepMetrics) -> None:
        if metrics.step == self.step:
            self.act()


def sends(*numbers: int) -> Callable[[], None]:
    return lambda: [os.kill(os.getpid(), number) for number in numbers] and None


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stopping") / "whole"
    ssl_dc.train(SETTINGS, output=folder)
    return folder


def saved_steps(folder: Path) -> list[int]:
    return sorted(int(path.name.removeprefix("step-")) for path in (folder / "checkpoints").glob("step-*"))


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
@pytest.mark.parametrize("step", [6, 8, 16], ids=["mid-epoch", "end of an epoch", "last step"])
def test_a_signal_ends_training_after_its_step_and_it_goes_on_to_the_last_bit(
    tmp_path: Path, whole: Path, number: signal.Signals, status: int, step: int
) -> None:
    folder = tmp_path / "run"
    before = signal.getsignal(number)
    with pytest.raises(Stopped) as caught:
        ssl_dc.train(SETTINGS, output=folder, watchers=[At(step, sends(number))])
    assert signal.getsignal(number) is before
    assert caught.value.exit_status == status
    assert str(caught.value) == (
        f"stopped by {number.name} after step {step} of 16, which is saved; go on with: ssl-dc train --resume {folder}"
    )
    assert saved_steps(folder)[-1] == step
    assert not (folder / "model.safetensors").exists()
    ssl_dc.resume(folder)
    for name in ("metrics.jsonl", "model.safetensors", "result.json"):
        assert (folder / name).read_bytes() == (whole / name).read_bytes(), name


def test_the_command_exits_as_shells_expect_and_says_how_to_go_on(tmp_path: Path) -> None:
    folder = tmp_path / "a run"
    words = [word for key, value in SETTINGS.items() for word in (f"--{key}", str(value))]
    words += ["--training.epochs", "4000", "--training.workers", "1"]
    process = subprocess.Popen(
        [sys.executable, "-m", "ssl_dc", "train", *words, "--output", str(folder)],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # a process group of its own, signalled as a terminal or a scheduler does it
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    wait_until(lambda: bool(saved_steps(folder)), process)
    os.killpg(process.pid, signal.SIGTERM)
    os.killpg(process.pid, signal.SIGTERM)  # a launcher that hands it on: one request, heard twice
    _, said = process.communicate(timeout=60)
    assert process.returncode == 143, said
    *_, last = said.splitlines()
    assert last.startswith("ssl-dc: stopped by SIGTERM after step ")
    assert last.endswith(f"go on with: ssl-dc train --resume '{folder}'")
    assert f"step {saved_steps(folder)[-1]} of " in last
    assert "Traceback" not in said


def wait_until(reached: Callable[[], bool], process: subprocess.Popen[str], seconds: float = 120) -> None:
    ends = time.monotonic() + seconds
    while not reached():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < ends
        time.sleep(0.02)


@pytest.mark.parametrize(("number", "raised"), [(signal.SIGTERM, SystemExit), (signal.SIGINT, KeyboardInterrupt)])
def test_a_second_signal_stops_at_once_but_not_its_echo(number: int, raised: type[BaseException]) -> None:
    with StopSignals() as stop:
        os.kill(os.getpid(), number)
        os.kill(os.getpid(), number)
        assert stop.agreed(torch.device("cpu")) == number
        stop._since -= ECHO_SECONDS
        with pytest.raises(raised) as caught:
            os.kill(os.getpid(), number)
    if raised is SystemExit:
        assert caught.value.code == 143


def test_training_in_another_thread_hears_no_signals(tmp_path: Path) -> None:
    failures: list[BaseException] = []

    def train() -> None:
        try:
            ssl_dc.train({**SETTINGS, "training.epochs": 1}, output=tmp_path / "run")
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=train)
    thread.start()
    thread.join()
    assert failures == []


def test_a_process_that_prepares_images_ends_when_its_main_process_says_so_and_by_nobody_else() -> None:
    context = multiprocessing.get_context("fork")
    ready = context.Event()

    def prepare() -> None:
        prepare_worker(0)
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGTERM)  # from another than the main process
        ready.set()
        signal.pause()

    worker = context.Process(target=prepare, daemon=True)
    worker.start()
    assert ready.wait(60)
    worker.join(0.5)
    assert worker.is_alive()
    worker.terminate()
    worker.join(60)
    assert worker.exitcode == 0


def test_resume_points_are_written_by_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr("ssl_dc.training.trainer.time", type("Clock", (), {"monotonic": staticmethod(lambda: clock[0])}))

    class OneMinuteAStep(Watcher):
        def on_step_end(self, step: int) -> None:  # noqa: ARG002
            clock[0] += 60

    settings = {**SETTINGS, "training.batch_size": 8, "training.keep_checkpoints": 50, "training.epochs": 2}
    ssl_dc.train({**settings, "training.checkpoint_minutes": 3}, output=tmp_path / "run", watchers=[OneMinuteAStep()])
    assert saved_steps(tmp_path / "run") == [3, 6, 8, 11, 14, 16]
    ssl_dc.train({**settings, "training.checkpoint_minutes": None}, output=tmp_path / "off", watchers=[OneMinuteAStep()])
    assert saved_steps(tmp_path / "off") == [8, 16]


TWO = """
import json, os, signal, sys
import ssl_dc
from ssl_dc.errors import Stopped


from ssl_dc.training import trainer
take = trainer.Trainer._take_step
def signalled(self, *arguments):
    if self.step == 5 and os.environ["RANK"] == "1":
        os.kill(os.getpid(), signal.SIGTERM)
    return take(self, *arguments)
trainer.Trainer._take_step = signalled
try:
    ssl_dc.train(json.loads(sys.argv[1]), output=sys.argv[2])
except Stopped as stopped:
    with open(sys.argv[2] + ".said-" + os.environ["RANK"], "w") as file:
        file.write(str(stopped))
    file.close()
    os._exit(0)  # gloo's threads may abort a process that ends while they work
sys.exit(3)
"""


def test_a_signal_to_one_process_of_two_stops_both_after_the_same_step(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(TWO)
    folder = tmp_path / "run"
    launched = subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"),
            *(str(tmp_path / "script.py"), json.dumps(SETTINGS), str(folder)),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert launched.returncode == 0, launched.stderr[-3000:]
    said = [(tmp_path / f"run.said-{rank}").read_text() for rank in (0, 1)]
    assert said[0] == said[1]
    assert said[0].startswith("stopped by SIGTERM after step 6 of 16, which is saved")
    assert saved_steps(folder) == [4, 6]
    result = CliRunner().invoke(main, ["train", "--resume", str(folder), "--json"])
    assert result.exit_code == 0, result.stderr
    assert "training from step 6 to 16" in result.stderr
