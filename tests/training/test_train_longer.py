"""A run that is trained for longer than it was begun for."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path

import pytest

import ssl_dc
from helpers.command_line import call, done, parsed, refused
from helpers.forked import run_forked, run_two_forked
from helpers.settings import TINY
from helpers.training import Told, assert_same_files, logged, saved_steps
from ssl_dc.atomic_files import write_bytes
from ssl_dc.errors import RunError
from ssl_dc.run_folder import RunFolder

SETTINGS = {**TINY, "training.epochs": 2, "training.checkpoint_every": 3, "training.keep_checkpoints": 50}
"""Two epochs of four steps."""


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return ssl_dc.train(SETTINGS, output=tmp_path_factory.mktemp("short") / "run").folder


@pytest.fixture(scope="module")
def longer(short: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run, trained for four epochs."""
    folder = shutil.copytree(short, tmp_path_factory.mktemp("longer") / "run")
    return ssl_dc.resume(folder, epochs=4).folder


@pytest.mark.long
def test_a_finished_run_is_trained_for_longer(short: Path, longer: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(short, tmp_path / "run")
    result = call("train", "--resume", folder, "--epochs", "4", "--json")
    assert result.exit_code == 0, result.stderr
    assert "after step 8 this training goes on for 4 epochs in all, in place of 2" in result.stderr
    assert "training from step 8 to 16" in result.stderr
    assert_same_files(folder, longer)
    assert [line["step"] for line in logged(folder)] == list(range(1, 17))
    assert logged(folder)[:8] == logged(short)
    rates = [line["lr"] for line in logged(folder)]
    assert rates[8] > 10 * rates[7], "the learning rate rises again"
    assert rates[8:] == sorted(rates[8:], reverse=True)
    training = json.loads((folder / "config.json").read_text())["training"]
    assert (training["epochs"], training["earlier_epochs"]) == (4, [{"epochs": 2, "until_step": 8}])


@pytest.mark.long
def test_a_new_run_of_its_config_is_the_same_run(longer: Path, tmp_path: Path) -> None:
    done("train", "--config", longer / "config.json", "--output", tmp_path / "anew")
    assert_same_files(tmp_path / "anew", longer)


def test_the_shorter_runs_model_is_kept(short: Path, longer: Path) -> None:
    kept = longer / "earlier" / "2-epochs"
    assert_same_files(kept, short, "config.json", "model.safetensors", "result.json")
    assert parsed("evaluate", kept) == parsed("evaluate", short)


def test_each_start_is_in_the_history(longer: Path) -> None:
    lines = [json.loads(line) for line in (longer / "history.jsonl").read_text().splitlines()]
    assert [(line["from_step"], line["epochs"], line["total_steps"]) for line in lines] == [(0, 2, 8), (8, 4, 16)]
    assert all(line["environment"]["versions"]["torch"] and line["time"] for line in lines)


KILLED = """
import os, signal, sys
import ssl_dc

class Killer(ssl_dc.Watcher):
    def on_step(self, metrics):
        if metrics.step == 11:
            os.kill(os.getpid(), signal.SIGKILL)

ssl_dc.resume(sys.argv[1], epochs=4, watchers=[Killer()])
"""


@pytest.mark.long
@pytest.mark.parametrize("again", [(), ("--epochs", "4")])
def test_a_longer_run_that_is_killed_goes_on(short: Path, longer: Path, tmp_path: Path, again: tuple[str, ...]) -> None:
    folder = shutil.copytree(short, tmp_path / "run")
    killed = run_forked(KILLED, folder)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert saved_steps(folder)[-1] == 9
    early = call("evaluate", folder)
    assert early.exit_code == 1, "the model of the shorter run is not taken for that of the longer one"
    assert "its training has not ended" in early.stderr
    resumed = call("train", "--resume", folder, *again)
    assert resumed.exit_code == 0, resumed.stderr
    assert "training from step 9 to 16" in resumed.stderr
    assert "in place of" not in resumed.stderr
    assert_same_files(folder, longer)


@pytest.mark.parametrize("written", [2, 3])
def test_a_change_of_length_may_be_interrupted_anywhere(
    short: Path, longer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: int
) -> None:
    folder = shutil.copytree(short, tmp_path / "run")
    config = RunFolder(longer).config()
    left = iter(range(written))

    def full(path: Path, content: bytes) -> None:
        if next(left, None) is None:
            raise RunError("the disk is full")
        write_bytes(path, content)

    with monkeypatch.context() as patched:
        for name in ("run_folder.write_bytes", "atomic_files.write_bytes"):
            patched.setattr(f"ssl_dc.{name}", full)
        with pytest.raises(RunError, match="the disk is full"):
            RunFolder(folder).change_length(config)
    if written == 3:  # the model is kept, and the run not yet given its new length
        assert not (folder / "model.safetensors").exists()
        assert_same_files(folder / "earlier" / "2-epochs", short, "config.json", "model.safetensors", "result.json")
    else:
        assert_same_files(folder, short, "config.json", "model.safetensors", "result.json")
    ssl_dc.resume(folder)
    assert_same_files(folder, short)


@pytest.mark.long
def test_an_unfinished_run_gets_another_length(short: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(short, tmp_path / "run")
    for step in (6, 8):
        shutil.rmtree(folder / "checkpoints" / f"step-{step:08d}")
    for name in ("model.safetensors", "result.json"):
        (folder / name).unlink()
    told = Told()
    ssl_dc.resume(folder, epochs=3, watchers=[told])
    assert told.messages[0].startswith("after step 4 this training goes on for 3 epochs in all, in place of 2")
    assert [line["step"] for line in logged(folder)] == list(range(1, 13))
    assert not (folder / "earlier").exists(), "there was no model to keep"
    done("train", "--config", folder / "config.json", "--output", tmp_path / "anew")
    assert_same_files(tmp_path / "anew", folder)


@pytest.mark.long
def test_a_run_may_be_lengthened_twice(longer: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(longer, tmp_path / "run")
    ssl_dc.resume(folder, epochs=5)
    assert sorted(path.name for path in (folder / "earlier").iterdir()) == ["2-epochs", "4-epochs"]
    done("train", "--config", folder / "config.json", "--output", tmp_path / "anew")
    assert_same_files(tmp_path / "anew", folder)


def test_the_same_length_again_changes_nothing(longer: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(longer, tmp_path / "run")
    ssl_dc.resume(folder, epochs=4)
    assert_same_files(folder, longer, "config.json", "model.safetensors", "result.json", "metrics.jsonl")
    assert [path.name for path in (folder / "earlier").iterdir()] == ["2-epochs"]


@pytest.mark.long
def test_a_killed_run_that_has_not_begun_gets_another_length(short: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(short, tmp_path / "run")
    for name in ("model.safetensors", "result.json", "metrics.jsonl"):
        (folder / name).unlink()
    shutil.rmtree(folder / "checkpoints")
    ssl_dc.resume(folder, epochs=1)
    assert RunFolder(folder).config().training.earlier_epochs == ()
    plain = ssl_dc.train({**SETTINGS, "training.epochs": 1}, output=tmp_path / "plain").folder
    assert_same_files(folder, plain)


def test_a_trained_run_without_resume_points_is_not_trained_anew(short: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(short, tmp_path / "run")
    shutil.rmtree(folder / "checkpoints")
    for more in (("--epochs", "4"), ()):
        assert f"ssl-dc train --init {folder}" in refused("train", "--resume", folder, *more)
    assert_same_files(folder, short, "config.json", "model.safetensors", "result.json", "metrics.jsonl")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--epochs", "1"), "1 epochs are 4 steps, and 8 steps are done already; train for 3 epochs or more"),
        (("--epochs", "0"), "--epochs: training.epochs = 0"),
        (("--epochs", "many"), "--epochs: training.epochs = 'many'"),
        (("--epochs", "4", "--lr", "1"), "leave out --lr"),
        (("--epochs", "4", "--init", "x.pth"), "leave out --init"),
    ],
)
def test_what_cannot_be_is_refused_and_nothing_is_changed(
    short: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], says: str
) -> None:
    folder = shutil.copytree(short, tmp_path / "here" / "run")
    monkeypatch.chdir(folder.parent)
    assert says in refused("train", "--resume", folder, *words)
    assert_same_files(folder, short, "config.json", "model.safetensors", "result.json", "metrics.jsonl")


TWO_PROCESSES = """
import json, sys
from pathlib import Path
import ssl_dc
from ssl_dc.run_folder import RunFolder

folder = Path(sys.argv[1])
ssl_dc.train(json.loads(sys.argv[2]), output=folder / "run")
ssl_dc.resume(folder / "run", epochs=4)
ssl_dc.train(RunFolder(folder / "run").config(), output=folder / "anew")
"""


@pytest.mark.slow
def test_two_processes_train_for_longer_together(tmp_path: Path) -> None:
    launched = run_two_forked(TWO_PROCESSES, tmp_path, json.dumps(SETTINGS))
    assert launched.returncode == 0, launched.stderr
    assert [line["step"] for line in logged(tmp_path / "run")] == list(range(1, 17))
    assert_same_files(tmp_path / "run", tmp_path / "anew")
