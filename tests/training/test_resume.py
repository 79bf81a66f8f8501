"""A run that was killed, or whose resume point is damaged, goes on as if nothing had happened."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path

import pytest

import ssl_dc
from helpers.command_line import call
from helpers.forked import run_forked
from helpers.settings import TINY
from helpers.training import Told, assert_same_files, logged, saved_steps

SETTINGS = {**TINY, "training.epochs": 4, "training.checkpoint_every": 3, "training.keep_checkpoints": 50}
"""Four epochs of four steps."""


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return ssl_dc.train(SETTINGS, output=tmp_path_factory.mktemp("resume") / "whole").folder


KILLED = """
import json, os, signal, sys
import ssl_dc

class Killer(ssl_dc.Watcher):
    def on_step(self, metrics):
        if metrics.step == 11:
            os.kill(os.getpid(), signal.SIGKILL)

ssl_dc.train(json.loads(sys.argv[1]), output=sys.argv[2], watchers=[Killer()])
"""


@pytest.mark.long
def test_a_killed_run_goes_on_as_if_it_had_never_stopped(tmp_path: Path, uninterrupted: Path) -> None:
    folder = tmp_path / "run"
    killed = run_forked(KILLED, json.dumps(SETTINGS), folder)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert saved_steps(folder)[-1] == 9
    assert [line["step"] for line in logged(folder)] == list(range(1, 12)), "lines after the resume point"
    assert not (folder / "model.safetensors").exists()
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 12, "epo')  # as if it had been killed in the middle of a line
    resumed = call("train", "--resume", folder, "--json")
    assert resumed.exit_code == 0, resumed.stderr
    assert "training from step 9 to 16" in resumed.stderr
    assert_same_files(folder, uninterrupted)


@pytest.mark.long
@pytest.mark.parametrize("step", [0, 1, 3, 4, 6, 15])
def test_a_run_goes_on_from_any_resume_point(tmp_path: Path, uninterrupted: Path, step: int) -> None:
    folder = tmp_path / "run"
    shutil.copytree(uninterrupted, folder)
    for name in ("model.safetensors", "result.json"):
        (folder / name).unlink()
    assert saved_steps(folder) == [3, 4, 6, 8, 9, 12, 15, 16]
    for later in [saved for saved in saved_steps(folder) if saved > step]:
        shutil.rmtree(folder / "checkpoints" / f"step-{later:08d}")
    ssl_dc.resume(folder)
    assert_same_files(folder, uninterrupted)


def test_a_damaged_resume_point_is_told_and_the_one_before_taken(tmp_path: Path, uninterrupted: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(uninterrupted, folder)
    path = folder / "checkpoints" / "step-00000016" / "learner.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    told = Told()
    ssl_dc.resume(folder, watchers=[told])
    (message,) = told.messages
    assert "step-00000016" in message
    assert ("start", 15) in told.events
    assert_same_files(folder, uninterrupted)
