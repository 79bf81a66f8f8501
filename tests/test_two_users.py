"""Two users of one machine, in a folder where both may write: neither gets the other's files for its own.

One user begins runs and writes files; the other, who means ill, plants folders, links and FIFOs at the same moment. Needs
root, who makes two users of two numbers.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from ssl_dc.atomic_files import append_line, read_bytes, write_bytes
from ssl_dc.config import resolve
from ssl_dc.errors import SslDcError
from ssl_dc.run_folder import RunFolder, environment

ALICE, MALLORY = 54_321, 54_322
"""Numbers of two users; no account needs to have them."""

pytestmark = pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="only root can act as two users")


@pytest.fixture
def shared(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder like /tmp: all may write, nobody may remove what is another's."""
    folder = Path(tempfile.mkdtemp(prefix="two-users-"))
    folder.chmod(0o1777)
    # Root's Python may be closed to the two users, so root imports and reads beforehand what they need of it.
    recorded = environment()
    monkeypatch.setattr("ssl_dc.run_folder.environment", lambda: recorded)
    RunFolder.create(folder / "of-root", resolve().config)
    RunFolder.existing(folder / "of-root").config()
    shutil.rmtree(folder / "of-root")
    yield folder
    shutil.rmtree(folder)


def as_user(user: int, act: Callable[[], None]) -> int:
    """The process id of a child that does something as that user."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.setgroups([])
            os.setgid(user)
            os.setuid(user)
            os.umask(0o022)
            act()
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    return child


def together(*acts: tuple[int, Callable[[], None]]) -> None:
    """Let users act at the same moment."""
    ready, go = os.pipe(), os.pipe()

    def starting(act: Callable[[], None]) -> Callable[[], None]:
        def run() -> None:
            os.close(go[1])
            os.write(ready[1], b"!")
            os.read(go[0], 1)
            act()

        return run

    children = [as_user(user, starting(act)) for user, act in acts]
    for _ in children:
        os.read(ready[0], 1)
    os.close(go[1])
    statuses = [os.waitpid(child, 0)[1] for child in children]
    for end in (*ready, go[0]):
        os.close(end)
    assert statuses == [0] * len(acts)


def planting(draw: random.Random, path: Path, elsewhere: Path) -> Callable[[], None]:
    """What the other user does with the name that a run, or a file, is to have."""
    kind = draw.choice(["folder", "open folder", "full folder", "link", "FIFO", "run", "partial link", "locked folder"])
    pause = draw.uniform(0, 0.004)

    def plant() -> None:
        time.sleep(pause)
        with suppress(OSError, SslDcError):
            if kind == "link":
                path.symlink_to(elsewhere)
            elif kind == "FIFO":
                os.mkfifo(path)
            elif kind == "run":
                RunFolder.create(path, resolve().config)
            elif kind == "partial link":
                path.with_name(f".{path.name}.partial").symlink_to(elsewhere)
            else:
                path.mkdir()
                path.chmod(0o777)
                if kind == "full folder":
                    (path / "config.json").write_text("{}")
                elif kind == "locked folder":
                    (path / ".lock").write_text("")
                    (path / ".lock").chmod(0o666)
                elif kind == "open folder":
                    (path / ".config.json.partial").symlink_to(elsewhere / "precious")

    return plant


def something_of_alice(place: Path) -> Path:
    """A folder with a file, which nobody else may change."""
    folder = place / "of-alice"
    folder.mkdir()
    (folder / "precious").write_text("untouched")
    for path in (folder, folder / "precious"):
        os.chown(path, ALICE, ALICE)
    return folder


def assert_untouched(precious: Path) -> None:
    assert [entry.name for entry in precious.iterdir()] == ["precious"]
    assert (precious / "precious").read_text() == "untouched"


def race_for_a_run_folder(draw: random.Random, place: Path) -> str:
    """Alice begins a run while Mallory plants something; whose the folder is then."""
    path, told = place / "run", place / "told"
    precious = something_of_alice(place)
    config = resolve().config

    def begin() -> None:
        try:
            with RunFolder.new(path, config) as folder:
                append_line(folder.metrics_file, "{}")
                write_bytes(folder.model_file, b"weights")
            ended = "begun"
        except SslDcError as error:
            ended = f"refused: {error}"
        told.write_text(json.dumps(ended))

    together((ALICE, begin), (MALLORY, planting(draw, path, precious)))
    ended = str(json.loads(told.read_text()))
    assert_untouched(precious)
    if ended != "begun":
        return "refused"
    assert path.lstat().st_uid == ALICE
    assert {entry.name for entry in path.iterdir()} == {
        "config.json",
        "environment.json",
        "metrics.jsonl",
        "model.safetensors",
    }
    assert all(entry.lstat().st_uid == ALICE for entry in path.iterdir())
    assert RunFolder(path).config() == config
    return "begun"


def race_for_a_file(draw: random.Random, place: Path) -> str:
    """Alice writes a file and reads it again while Mallory plants something; what Alice gets."""
    path, told = place / "file", place / "told"
    precious = something_of_alice(place)
    target = draw.choice([precious, precious / "precious"])

    def write() -> None:
        try:
            write_bytes(path, b"of Alice")
            ended = read_bytes(path, 100).decode()
        except (SslDcError, OSError):
            ended = "refused"
        told.write_text(json.dumps(ended))

    together((ALICE, write), (MALLORY, planting(draw, path, target)))
    ended = str(json.loads(told.read_text()))
    assert_untouched(precious)
    assert ended in ("of Alice", "refused")
    return ended


def races(count: int, seed: int, shared: Path) -> Counter[str]:
    draw = random.Random(seed)
    counted: Counter[str] = Counter()
    for number in range(count):
        place = shared / str(number)
        place.mkdir()
        place.chmod(0o1777)
        race = race_for_a_run_folder if number % 2 else race_for_a_file
        counted[f"{race.__name__}: {race(draw, place)}"] += 1
        shutil.rmtree(place)
    return counted


@pytest.mark.long
def test_neither_of_two_users_gets_the_files_of_the_other(shared: Path) -> None:
    counted = races(16, 0, shared)
    assert counted.total() == 16


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_hundreds_of_races_of_two_users(shared: Path, capsys: pytest.CaptureFixture[str]) -> None:
    counted = races(666, 1, shared)  # and 334 for the cache, in test_kernel_cache.py
    with capsys.disabled():
        print(f"\n{dict(counted)}")
    assert len(counted) == 4, "each ending should come about"


def test_a_folder_that_somebody_else_has_put_in_a_shared_place_is_not_used(shared: Path) -> None:
    planted, ended = shared / "run", shared / "told"
    planted.mkdir()
    os.chown(planted, MALLORY, MALLORY)
    planted.chmod(0o777)

    def begin() -> None:
        try:
            RunFolder.create(planted, resolve().config)
        except SslDcError as error:
            ended.write_text(str(error))

    os.waitpid(as_user(ALICE, begin), 0)
    assert ended.read_text().startswith(f"{planted} belongs to another user")
    assert list(planted.iterdir()) == []


def test_a_colleague_may_load_the_run_of_another(shared: Path) -> None:
    run, ended = shared / "run", shared / "told"
    os.waitpid(as_user(ALICE, lambda: RunFolder.create(run, resolve().config) and None), 0)
    os.waitpid(as_user(MALLORY, lambda: ended.write_text(str(RunFolder.existing(run).config().seed)) and None), 0)
    assert ended.read_text() == "0"
