"""A disk that is full or cannot be written: one message, the earlier resume point is kept, the run goes on later."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import ssl_dc
from helpers.command_line import call
from helpers.settings import TINY
from helpers.training import assert_same_files, saved_steps
from ssl_dc import RunError
from ssl_dc.trackers.base import Watcher

SETTINGS = {**TINY, "backbone.width": 8, "training.checkpoint_every": 1, "training.keep_checkpoints": 1}
"""Two epochs of four steps; a resume point takes about 3 MiB."""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return ssl_dc.train(SETTINGS, output=tmp_path_factory.mktemp("disk") / "whole").folder


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 16 MiB."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(place)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("this machine does not let a test mount a small disk")
    yield place
    subprocess.run(["umount", str(place)], check=True)


class Filling(Watcher):
    """Fills the disk when a step was saved, all but a little."""

    def __init__(self, disk: Path, step: int, left: int) -> None:
        self.disk, self.step, self.left = disk, step, left

    def on_checkpoint(self, step: int) -> None:
        if step == self.step:
            with (self.disk / "ballast").open("wb") as file:
                file.write(b"\0" * (shutil.disk_usage(self.disk).free - self.left))


@pytest.mark.long
@pytest.mark.parametrize("left", [2**20, 2**12], ids=["no room for a resume point", "hardly room for a line of metrics"])
def test_a_full_disk_keeps_the_earlier_resume_point_and_says_what_is_needed(
    small_disk: Path, whole: Path, left: int
) -> None:
    folder = small_disk / "run"
    with pytest.raises(RunError) as caught:
        ssl_dc.train(SETTINGS, output=folder, watchers=[Filling(small_disk, 3, left)])
    text = str(caught.value)
    assert "No space left on device" in text
    if left == 2**20:
        assert "the resume point of step 4 cannot be written; it takes " in text
        assert "MiB are free there" in text
        assert f"Last good resume point: {folder}/checkpoints/step-00000003" in text
    assert saved_steps(folder) == [3]
    result = call("train", "--resume", folder)
    assert result.exit_code == 1
    assert "No space left on device" in result.stderr
    assert "Traceback" not in result.stderr
    assert saved_steps(folder) == [3]
    (small_disk / "ballast").unlink()
    result = call("train", "--resume", folder)
    assert result.exit_code == 0, result.stderr
    assert "training from step 3 to 8" in result.stderr
    assert_same_files(folder, whole)


def test_a_run_folder_that_cannot_be_written_is_a_message(tmp_path: Path, whole: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    if os.geteuid() == 0:
        # permissions do not bind root; a folder mounted read-only does
        mount = ["mount", "--bind", str(folder), str(folder)]
        if subprocess.run(mount, capture_output=True, check=False).returncode:
            pytest.skip(
                "run by root, who may write anywhere, on a machine that does not let a test mount a folder read-only"
            )
        subprocess.run(["mount", "-o", "remount,ro,bind", str(folder)], check=True)
    else:
        folder.chmod(stat.S_IRUSR | stat.S_IXUSR)
    try:
        result = call("train", "--resume", folder)
        assert ssl_dc.load(folder).feature_dim == 64, "reading needs no writing"
    finally:
        if os.geteuid() == 0:
            subprocess.run(["umount", str(folder)], check=True)
        else:
            folder.chmod(stat.S_IRWXU)
    assert result.exit_code == 1
    assert "Read-only file system" in result.stderr or "Permission denied" in result.stderr
    assert str(folder) in result.stderr
    assert "Traceback" not in result.stderr
    assert_same_files(folder, whole)


@pytest.mark.long
@pytest.mark.parametrize(
    ("function", "code"),
    [("fsync", errno.ENOSPC), ("mkdir", errno.EDQUOT), ("rename", errno.EIO)],
    ids=["fsync", "mkdir", "rename"],
)
def test_a_failing_system_call_while_saving_keeps_the_earlier_resume_point(
    tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch, function: str, code: int
) -> None:
    folder = tmp_path / "run"

    def failing(*_: Any, **__: Any) -> None:
        raise OSError(code, os.strerror(code))

    class From3(Watcher):
        def on_step_end(self, step: int) -> None:
            if step == 4:
                monkeypatch.setattr(os, function, failing)

    with pytest.raises(RunError, match=f"the resume point of step 4 cannot be written.*{os.strerror(code)}"):
        ssl_dc.train(SETTINGS, output=folder, watchers=[From3()])
    monkeypatch.undo()
    assert saved_steps(folder) == [3]
    ssl_dc.resume(folder)
    assert_same_files(folder, whole)
