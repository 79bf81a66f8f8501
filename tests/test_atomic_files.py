"""Files are written whole, to a new name that no link can lead elsewhere; only regular files are read."""

from __future__ import annotations

import os
import shutil
import socket
from pathlib import Path

import pytest

import ssl_dc
from helpers.command_line import call
from helpers.settings import SHORT
from ssl_dc.atomic_files import append_line, is_partial, partial_of, read_bytes, read_text, write_bytes, write_text
from ssl_dc.cli.messages import UNEXPECTED
from ssl_dc.errors import ConfigError, RunError


def test_a_link_of_the_temporary_name_of_old_is_not_followed(tmp_path: Path) -> None:
    """Such a link in a folder that otherwise counted as empty once led a new run's config elsewhere."""
    precious = tmp_path / "precious"
    precious.write_text("untouched")
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / ".config.json.partial").symlink_to(precious)
    with pytest.raises(ConfigError, match="is there already"):
        ssl_dc.train(SHORT, output=folder)
    (folder / ".config.json.partial").unlink()
    (folder / ".config.json.partial").write_text("{half")  # what an older version leaves when it is killed
    ssl_dc.train(SHORT, output=folder)
    assert precious.read_text() == "untouched"
    assert not (folder / ".config.json.partial").exists()


@pytest.mark.parametrize("name", ["g.png", "model.safetensors"])
def test_nothing_beside_the_output_is_followed_or_guessed(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    precious = tmp_path / "precious"
    precious.write_text("untouched")
    (tmp_path / f".{name}.partial").symlink_to(precious)
    write_bytes(tmp_path / name, b"picture")
    assert (tmp_path / name).read_bytes() == b"picture"
    assert precious.read_text() == "untouched"
    monkeypatch.setattr("ssl_dc.atomic_files.secrets.token_hex", lambda _: "guessed")
    (tmp_path / f".{name}.guessed.partial").symlink_to(precious)
    with pytest.raises(RunError, match="File exists"):
        write_bytes(tmp_path / name, b"another")
    assert precious.read_text() == "untouched"
    assert (tmp_path / name).read_bytes() == b"picture"


def test_a_link_in_the_place_of_the_file_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text("untouched")
    (tmp_path / "file").symlink_to("elsewhere")
    write_text(tmp_path / "file", "new")
    assert (tmp_path / "elsewhere").read_text() == "untouched"
    assert not (tmp_path / "file").is_symlink()


def test_no_two_temporary_names_are_the_same_and_all_are_known_again(tmp_path: Path) -> None:
    names = {partial_of(tmp_path / "file") for _ in range(1000)}
    assert len(names) == 1000
    for path in (names.pop(), tmp_path / ".config.json.partial"):
        assert not is_partial(path)
        path.write_text("")
        assert is_partial(path)
    (tmp_path / ".link.partial").symlink_to("file")
    os.mkfifo(tmp_path / ".fifo.partial")
    assert not is_partial(tmp_path / ".link.partial")
    assert not is_partial(tmp_path / ".fifo.partial")
    assert not is_partial(tmp_path / "file")


def test_what_interrupted_writings_left_is_cleared_away_when_a_run_goes_on(copied_run: Path) -> None:
    partial_of(copied_run / "config.json").write_text("{half")
    (copied_run / "checkpoints" / ".step-00000002.0123456789abcdef.partial").mkdir()
    ssl_dc.resume(copied_run)
    assert list(copied_run.rglob("*.partial")) == []


def test_a_failed_writing_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(descriptor: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("ssl_dc.atomic_files.os.fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_text(tmp_path / "file", "text")
    assert list(tmp_path.iterdir()) == []


def strange(place: Path, kind: str) -> Path:
    path = place / "strange"
    if kind == "FIFO":
        os.mkfifo(path)
    elif kind == "socket":
        socket.socket(socket.AF_UNIX).bind(str(path))
    elif kind == "folder":
        path.mkdir()
    elif kind == "link to a FIFO":
        os.mkfifo(place / "fifo")
        path.symlink_to("fifo")
    elif kind == "loop of links":
        path.symlink_to("strange")
    else:
        return Path(kind)
    return path


STRANGE = ["FIFO", "socket", "folder", "link to a FIFO", "loop of links", "/dev/zero", "/dev/stdin"]


@pytest.mark.parametrize("kind", STRANGE)
def test_only_regular_files_are_read_and_added_to(tmp_path: Path, kind: str) -> None:
    path = strange(tmp_path, kind)
    for largest in (None, 10):
        with pytest.raises(OSError, match=r"regular|directory|No such device|levels of symbolic"):
            read_bytes(path, largest)
    if not path.is_relative_to("/dev"):
        with pytest.raises(RunError, match="cannot write"):
            append_line(path, "line")


def test_a_line_that_is_added_leaves_the_other_name_of_a_file_alone(tmp_path: Path) -> None:
    elsewhere, path = tmp_path / "elsewhere", tmp_path / "history.jsonl"
    write_text(elsewhere, "first\n")
    os.link(elsewhere, path)
    append_line(path, "second")
    append_line(path, "third")
    assert read_text(path) == "first\nsecond\nthird\n"
    assert read_text(elsewhere) == "first\n"


@pytest.mark.parametrize("kind", ["FIFO", "socket", "loop of links"])
@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "data.json", "metrics.jsonl", "checkpoints"])
def test_a_strange_file_in_a_run_is_a_message_or_not_needed(dense_run: Path, tmp_path: Path, kind: str, name: str) -> None:
    folder = Path(shutil.copytree(dense_run, tmp_path / "run"))
    (folder / name).rename(tmp_path / "away")
    if kind == "loop of links":
        (folder / name).symlink_to(name)
    else:
        strange(tmp_path, kind).rename(folder / name)
    for words in (["evaluate", folder], ["train", "--resume", folder]):
        said = call(*words)
        assert said.exit_code in (0, 1, 2)
        if said.exit_code:
            assert str(folder) in said.stderr
            assert UNEXPECTED not in said.stderr


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(OSError, match=r"larger than the 1,024 KiB"):
        read_text(tmp_path / "sparse", 2**20)
    (tmp_path / "fits").write_text("x" * 100)
    assert read_text(tmp_path / "fits", 100) == "x" * 100
