"""SIGTERM and Ctrl-C end a training after its step, saved; in all processes of a launch at the same one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import ssl_dc
from helpers.clock import StoppedClock
from helpers.command_line import HANGS, call
from helpers.forked import run_two_forked
from helpers.settings import SHORT, TINY, as_options
from helpers.training import assert_same_files, saved_steps, trainer_of
from ssl_dc.cli.messages import reported
from ssl_dc.errors import Stopped
from ssl_dc.trackers.base import StepMetrics, Watcher
from ssl_dc.training.stopping import ECHO_SECONDS, StopSignals


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
def whole(run_of_eight_steps: Path) -> Path:
    return run_of_eight_steps


@pytest.mark.long
@pytest.mark.parametrize(
    ("number", "status", "step"),
    [
        pytest.param(signal.SIGTERM, 143, 3, id="SIGTERM in mid-epoch"),
        pytest.param(signal.SIGTERM, 143, 4, id="SIGTERM at the end of an epoch"),
        pytest.param(signal.SIGTERM, 143, 8, id="SIGTERM at the last step"),
        pytest.param(signal.SIGINT, 130, 3, id="SIGINT in mid-epoch"),
    ],
)
def test_a_signal_ends_training_after_its_step_and_it_goes_on_to_the_last_bit(
    tmp_path: Path, whole: Path, number: signal.Signals, status: int, step: int
) -> None:
    folder = tmp_path / "run"
    before = signal.getsignal(number)
    with pytest.raises(Stopped) as caught:
        ssl_dc.train(TINY, output=folder, watchers=[At(step, sends(number))])
    assert signal.getsignal(number) is before
    assert caught.value.exit_status == status
    assert str(caught.value) == (
        f"stopped by {number.name} after step {step} of 8, which is saved; go on with: ssl-dc train --resume {folder}"
    )
    assert saved_steps(folder)[-1] == step
    assert not (folder / "model.safetensors").exists()
    ssl_dc.resume(folder)
    assert_same_files(folder, whole)


@pytest.mark.long
def test_the_command_exits_as_shells_expect_and_says_how_to_go_on(tmp_path: Path) -> None:
    folder = tmp_path / "a run"
    settings = {**TINY, "training.epochs": 4000, "training.workers": 1}
    process = subprocess.Popen(
        [sys.executable, "-m", "ssl_dc", "train", *as_options(settings), "--output", str(folder)],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # a process group of its own, signalled as a terminal or a scheduler does it
    )
    while not saved_steps(folder):
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGTERM)
    os.killpg(process.pid, signal.SIGTERM)  # a launcher that hands it on: one request, heard twice
    _, said = process.communicate(timeout=HANGS)
    assert process.returncode == 143, said
    *_, last = said.splitlines()
    assert last.startswith("ssl-dc: stopped by SIGTERM after step ")
    assert last.endswith(f"go on with: ssl-dc train --resume '{folder}'")
    assert f"step {saved_steps(folder)[-1]} of " in last
    assert said.splitlines().count("SIGTERM: ending after this step, then saving; send it again to stop now") == 1
    assert "Traceback" not in said


IN_A_LONG_COMPUTATION = """
import hashlib, sys
from ssl_dc.cli import main
from ssl_dc.training.trainer import Trainer

take = Trainer._take_step
def endless(self, *arguments):
    if self.step == 2:
        print("computing", flush=True)
        hashlib.pbkdf2_hmac("sha256", b"", b"", 2**31 - 1)  # half an hour that gives control back to nobody
    return take(self, *arguments)
Trainer._take_step = endless
main()
"""


@pytest.mark.long
def test_a_signal_is_answered_and_a_second_one_ends_the_command_while_a_computation_gives_no_control_back(
    tmp_path: Path,
) -> None:
    words = ["train", *as_options(TINY), "--output", str(tmp_path / "run")]
    with subprocess.Popen(
        [sys.executable, "-c", IN_A_LONG_COMPUTATION, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == "computing\n"
        process.send_signal(signal.SIGINT)
        answer = "ending after this step, then saving; press Ctrl-C again to stop now\n"
        assert answer in iter(process.stderr.readline, "")
        time.sleep(1.1 * ECHO_SECONDS)
        process.send_signal(signal.SIGINT)
        assert process.wait(HANGS) == 130
        assert process.stderr.read().splitlines()[-1] == (
            "ssl-dc: stopped by SIGINT. The training goes on from its last resume point with: ssl-dc train --resume"
            f" {tmp_path / 'run'}"
        )


IN_A_LONG_STEP = """
import time
from ssl_dc.cli import main
from ssl_dc.training.trainer import Trainer
def endless(self, *arguments):
    print("computing", flush=True)
    while True:
        time.sleep(0.01)  # gives control back
Trainer._take_step = endless
main()
"""


@pytest.mark.long
def test_a_second_signal_names_the_run_while_a_computation_gives_control_back(tmp_path: Path) -> None:
    words = ["train", *as_options(TINY), "--output", str(tmp_path / "run")]
    command = [sys.executable, "-c", IN_A_LONG_STEP, *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == "computing\n"
        process.send_signal(signal.SIGINT)
        assert "ending after this step, then saving; press Ctrl-C again to stop now\n" in iter(process.stderr.readline, "")
        time.sleep(1.1 * ECHO_SECONDS)
        process.send_signal(signal.SIGINT)
        assert process.wait(HANGS) == 130
        assert process.stderr.read().splitlines()[-1] == (
            "ssl-dc: stopped by SIGINT. The training goes on from its last resume point with: ssl-dc train --resume"
            f" {tmp_path / 'run'}"
        )


@pytest.mark.parametrize(("rank", "lines"), [("0", ["ssl-dc: stopped by SIGTERM"]), ("1", [])])
def test_of_a_launch_that_is_stopped_the_first_process_says_so(
    rank: str, lines: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RANK", rank)
    with pytest.raises(SystemExit) as ended, reported():
        raise Stopped("stopped by SIGTERM", signal.SIGTERM)
    assert ended.value.code == 143
    assert capsys.readouterr().err.splitlines() == lines


def test_a_training_that_saves_nothing_promises_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(Stopped, match="not saved"):
        trainer_of(SHORT).fit(watchers=[At(1, sends(signal.SIGINT))])
    assert capsys.readouterr().err == "ending after this step; press Ctrl-C again to stop now\n"


def test_the_answer_comes_once_and_others_who_wait_for_signals_get_theirs() -> None:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    before = signal.set_wakeup_fd(writing)
    answers: list[int] = []
    try:
        with StopSignals(answers.append):
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGTERM)
        assert signal.set_wakeup_fd(writing) == writing
    finally:
        signal.set_wakeup_fd(before)
    assert answers == [signal.SIGTERM]
    assert os.read(reading, 10) == bytes([signal.SIGTERM] * 2)
    os.close(reading)
    os.close(writing)
    assert "signals" not in [thread.name for thread in threading.enumerate()]


def test_a_signal_that_was_ignored_stays_ignored() -> None:
    """As in a background job of a shell script."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    answers: list[int] = []
    try:
        with StopSignals(answers.append) as stop:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGTERM)
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
    assert answers == [stop.received] == [signal.SIGTERM]


def test_a_signal_to_a_forked_process_is_not_taken_for_one_to_this() -> None:
    answers: list[int] = []
    with StopSignals(answers.append) as stop:
        child = os.fork()
        if child == 0:
            os.kill(os.getpid(), signal.SIGTERM)
            os._exit(0)
        os.waitpid(child, 0)
    assert answers == []
    assert stop.received is None


@pytest.mark.parametrize(("number", "raised"), [(signal.SIGTERM, SystemExit), (signal.SIGINT, KeyboardInterrupt)])
def test_a_second_signal_stops_at_once_but_not_its_echo(
    monkeypatch: pytest.MonkeyPatch, number: int, raised: type[BaseException]
) -> None:
    clock = StoppedClock(monkeypatch, "ssl_dc.training.stopping")
    with StopSignals() as stop:
        os.kill(os.getpid(), number)
        clock.pass_by(0.9 * ECHO_SECONDS)
        os.kill(os.getpid(), number)
        assert stop.agreed(torch.device("cpu")) == number
        clock.pass_by(0.2 * ECHO_SECONDS)
        with pytest.raises(raised) as caught:
            os.kill(os.getpid(), number)
        os.kill(os.getpid(), signal.SIGTERM)  # by the launcher, while the process ends
    if raised is SystemExit:
        assert caught.value.code == 143


def test_training_in_another_thread_hears_no_signals(tmp_path: Path) -> None:
    failures: list[BaseException] = []

    def train() -> None:
        try:
            ssl_dc.train(SHORT, output=tmp_path / "run")
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=train)
    thread.start()
    thread.join()
    assert failures == []


@pytest.mark.long
def test_resume_points_are_written_by_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = StoppedClock(monkeypatch, "ssl_dc.training.trainer")

    class OneMinuteAStep(Watcher):
        def on_step_end(self, step: int) -> None:  # noqa: ARG002
            clock.pass_by(60)

    settings = {**TINY, "training.batch_size": 8, "training.keep_checkpoints": 50}
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
    if self.step == 2 and os.environ["RANK"] in sys.argv[3]:
        os.kill(os.getpid(), signal.SIGTERM)
    return take(self, *arguments)
trainer.Trainer._take_step = signalled
try:
    ssl_dc.train(json.loads(sys.argv[1]), output=sys.argv[2])
except Stopped as stopped:
    with open(sys.argv[2] + ".said-" + os.environ["RANK"], "w") as file:
        file.write(str(stopped))
    os._exit(0)  # gloo's threads may abort a process that ends while they work
sys.exit(3)
"""


@pytest.mark.long
@pytest.mark.parametrize(("signalled", "answers"), [("1", 0), ("01", 1)], ids=["one", "both"])
def test_a_signal_to_processes_of_two_stops_both_after_the_same_step(tmp_path: Path, signalled: str, answers: int) -> None:
    folder = tmp_path / "run"
    launched = run_two_forked(TWO, json.dumps(TINY), folder, signalled)
    assert launched.returncode == 0, launched.stderr[-3000:]
    assert launched.stderr.count("ending after this step, then saving") == answers
    said = [(tmp_path / f"run.said-{rank}").read_text() for rank in (0, 1)]
    assert said[0] == said[1]
    assert said[0].startswith("stopped by SIGTERM after step 3 of 8, which is saved")
    assert saved_steps(folder) == [3]
    if signalled == "01":
        return
    resumed = call("train", "--resume", folder, "--json")
    assert resumed.exit_code == 0, resumed.stderr
    assert "training from step 3 to 8" in resumed.stderr
