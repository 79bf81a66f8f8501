"""One living process writes in a run folder; the others are told which, and harm nothing."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import shutil
import signal
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import ssl_dc
from helpers.command_line import message
from helpers.settings import TWO_BY_TWO
from ssl_dc.atomic_files import append_line
from ssl_dc.cli import messages
from ssl_dc.errors import ConfigError, RunError, SslDcError
from ssl_dc.run_lock import LOCK_FILE, sole_writer

TINY: dict[str, Any] = {**TWO_BY_TWO, "training.epochs": 4}
"""Four epochs of two steps."""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return ssl_dc.train(TINY, output=tmp_path_factory.mktemp("lock") / "whole").folder


class StopAtFour(ssl_dc.Watcher):
    def on_step_end(self, step: int) -> None:
        if step == 4:
            os.kill(os.getpid(), signal.SIGTERM)


@pytest.fixture(scope="module")
def half(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lock") / "half"
    with pytest.raises(ssl_dc.errors.Stopped):
        ssl_dc.train(TINY, output=folder, watchers=[StopAtFour()])
    return folder


def forked(act: Callable[[], None]) -> int:
    """The process id of a child that does something."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            act()
            status = 0
        finally:
            os._exit(status)
    return child


@contextmanager
def holding(folder: Path) -> Iterator[int]:
    """A child process that holds the lock of a folder until it is killed."""
    ready, told = os.pipe()

    def hold() -> None:
        with sole_writer(folder):
            os.write(told, b"!")
            time.sleep(600)

    child = forked(hold)
    try:
        os.read(ready, 1)
        yield child
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(ready)
        os.close(told)


@pytest.mark.long
def test_the_second_comer_is_refused_and_told_who_is_there(half: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(half, tmp_path / "run"))
    with holding(folder) as holder:
        with pytest.raises(ConfigError) as caught:
            ssl_dc.resume(folder)
        with pytest.raises(ConfigError, match=f"process {holder} on"):
            ssl_dc.train(TINY, output=folder)
        refused = message("train", "--resume", folder)
    said = str(caught.value)
    assert refused == f"ssl-dc: {said}\n", "before anything is planned"
    assert said.endswith("works in it; wait for its end")
    assert f"{folder} is in use: process {holder} on {socket.gethostname()} (since 20" in said
    assert (folder / LOCK_FILE).exists()
    ssl_dc.resume(folder)
    assert not (folder / LOCK_FILE).exists()


def test_a_process_that_is_stopped_names_the_run_that_it_holds_or_has_just_left_and_none_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ssl_dc.run_lock._left", [])
    run = tmp_path / "a run"
    run.mkdir()
    named = f" with: ssl-dc train --resume '{run}'"
    assert messages._run_goes_on() == ""
    with sole_writer(run):
        assert messages._run_goes_on().endswith(named)
    assert messages._run_goes_on() == ""
    with pytest.raises(KeyboardInterrupt), sole_writer(run):
        raise KeyboardInterrupt
    assert messages._run_goes_on().endswith(named)


def test_the_lock_holds_within_one_process_too(tmp_path: Path) -> None:
    with (
        sole_writer(tmp_path),
        pytest.raises(ConfigError, match=f"process {os.getpid()} on"),
        sole_writer(tmp_path),
    ):
        pass
    with sole_writer(tmp_path):
        pass


def test_evaluating_needs_no_lock(whole: Path) -> None:
    with holding(whole):
        assert ssl_dc.evaluate(whole, "knn") is not None


def test_a_child_that_outlives_the_holder_does_not_hold(tmp_path: Path) -> None:
    pids, told = os.pipe()
    running, alive = os.pipe()

    def live_on() -> None:
        os.write(alive, b"!")
        time.sleep(600)

    def hold_and_fork() -> None:
        with sole_writer(tmp_path):
            os.write(told, f"{forked(live_on)}\n".encode())
            time.sleep(600)

    holder = forked(hold_and_fork)
    grandchild = int(os.read(pids, 100))
    os.read(running, 1)
    os.kill(holder, signal.SIGKILL)
    os.waitpid(holder, 0)
    try:
        with sole_writer(tmp_path):
            os.kill(grandchild, 0)  # it is still there
    finally:
        os.kill(grandchild, signal.SIGKILL)


@pytest.mark.parametrize("kind", ["link", "hard link", "FIFO", "folder"])
def test_a_strange_file_in_the_place_of_the_lock_is_refused_and_left_alone(tmp_path: Path, kind: str) -> None:
    other = tmp_path / "other"
    other.write_text("precious")
    folder = tmp_path / "run"
    folder.mkdir()
    lock = folder / LOCK_FILE
    make = {
        "link": lambda: lock.symlink_to(other),
        "hard link": lambda: lock.hardlink_to(other),
        "FIFO": lambda: os.mkfifo(lock),
        "folder": lock.mkdir,
    }
    make[kind]()
    with pytest.raises(RunError, match=r"\.lock"), sole_writer(folder):
        pass
    assert other.read_text() == "precious"


@pytest.mark.long
def test_two_runs_without_a_name_go_to_two_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    ended = races(["train", "train"], tmp_path, lambda _: ssl_dc.train(TINY), random.Random(0))
    assert [each["status"] for each in ended] == ["won", "won"], ended
    assert len({each["folder"] for each in ended}) == 2


# races


def races(
    verbs: list[str], place: Path, act: Callable[[str], Any], draw: random.Random, at_the_lock: bool = False
) -> list[dict[str, Any]]:
    """Do things at the same time, each in a process of its own; how each ended.

    Args:
        at_the_lock: Whether all that come to the lock wait there for one another; otherwise they begin within 50 ms.
    """
    start = multiprocessing.Barrier(len(verbs))
    lock = multiprocessing.Barrier(sum(verb != "evaluate" for verb in verbs))
    real = sole_writer

    def together(folder: Path) -> Any:
        lock.wait(300)
        return real(folder)

    children = []
    for number, verb in enumerate(verbs):
        pause = draw.uniform(0, 0.05)

        def run(number: int = number, verb: str = verb, pause: float = pause) -> None:
            if at_the_lock:
                pytest.MonkeyPatch().setattr("ssl_dc.run_folder.sole_writer", together)
            start.wait(300)
            if not at_the_lock:
                time.sleep(pause)
            try:
                ended = {"status": "won", "folder": str(getattr(act(verb), "folder", ""))}
            except SslDcError as error:
                ended = {"status": type(error).__name__, "said": str(error), "pid": os.getpid()}
            (place / f"ended-{number}").write_text(json.dumps(ended))

        children.append(forked(run))
    for child in children:
        os.waitpid(child, 0)
    return [json.loads((place / f"ended-{number}").read_text()) for number in range(len(verbs))]


def assert_one_wins(kind: str, place: Path, whole: Path, half: Path, draw: random.Random) -> str:
    """One race of a kind on one folder; which of the ways of ending it took."""
    folder = place / "run"
    verbs = kind.split("+")
    if kind != "train+train":
        shutil.copytree(whole if "evaluate" in verbs else half, folder)
    acts: dict[str, Callable[[], Any]] = {
        "train": lambda: ssl_dc.train(TINY, output=folder),
        "resume": lambda: ssl_dc.resume(folder),
        "evaluate": lambda: ssl_dc.evaluate(folder, "knn"),
    }
    at_the_lock = "evaluate" not in verbs and draw.random() < 0.7
    ended = races(verbs, place, lambda verb: acts[verb](), draw, at_the_lock)
    won = [each["status"] == "won" for each in ended]
    if "evaluate" in verbs:
        assert all(won), ended
    else:
        # a second one that comes when the first has ended finds a finished run: nothing to train, or a folder in use
        assert any(won), ended
        for each in ended:
            if each["status"] != "won":
                assert each["status"] == "InUseError", ended
                assert "is in use: process " in each["said"] or "is there already" in each["said"], ended
    for name in ("model.safetensors", "metrics.jsonl", "result.json", "config.json"):
        assert (folder / name).read_bytes() == (whole / name).read_bytes(), (kind, name)
    assert {path.name for path in folder.iterdir()} == {path.name for path in whole.iterdir()} - {LOCK_FILE}
    refused = sum("is in use" in each.get("said", "") for each in ended)
    return f"{kind}: {refused} refused by the lock"


KINDS = ["train+train", "resume+resume", "resume+evaluate"]


@pytest.mark.long
@pytest.mark.parametrize("kind", KINDS)
def test_of_two_that_race_one_wins_and_its_result_is_whole(kind: str, tmp_path: Path, whole: Path, half: Path) -> None:
    assert_one_wins(kind, tmp_path, whole, half, random.Random(1))


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_two_hundred_pairs_race(tmp_path: Path, whole: Path, half: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record = Path(os.environ.get("SSL_DC_RECORD", tmp_path)) / "races.jsonl"  # goes on where such a record ends
    record.touch()
    ended = [json.loads(line) for line in record.read_text().splitlines()]
    for number in range(len(ended), 200):
        place = tmp_path / str(number)
        place.mkdir()
        ended.append(assert_one_wins(KINDS[number % 3], place, whole, half, random.Random(number)))
        shutil.rmtree(place)
        append_line(record, json.dumps(ended[-1]))
    with capsys.disabled():
        print(f"\n{len(ended)} races: {dict(Counter(ended))}")
