"""Calls that once ended in a traceback, showed raw control characters, or were taken without a word."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import ssl_dc
from helpers.command_line import HANGS, done, message, refused, successful
from helpers.command_line import call as called
from helpers.settings import SHORT, TWO_BY_TWO, as_options
from helpers.training import assert_same_files
from ssl_dc.training.checkpoint import _checksum

MANY = "f" * 5000
"""More digits than Python turns into a number."""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("words", [["--seed", f"0x{MANY}"], ["--set", f"seed=0x{MANY}"], ["--seed", "9" * 5000]])
def test_a_number_of_thousands_of_digits_is_no_seed(words: list[str], here: Path) -> None:
    assert "seed = '" in message("config", "show", *words)
    (here / "c.yaml").write_text(f"seed: 0x{MANY}\n")
    assert message("config", "validate", "c.yaml") == (
        "ssl-dc: c.yaml:1: a number of 5,002 digits, which no setting takes\n"
    )


def test_a_number_that_single_precision_cannot_hold_is_refused() -> None:
    assert "optimizer.lr = 1e+300: is too large" in message("config", "show", "--lr", "1e300")


def test_a_path_with_a_NUL_is_refused(here: Path) -> None:  # noqa: N802
    (here / "c.yaml").write_text('data: {name: folder, root: "a\\0b"}\n')
    assert "data.root = 'a\\x00b': holds a NUL character" in message("train", "--config", "c.yaml")


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_a_closed_standard_stream_is_no_hindrance(closed: str, here: Path) -> None:
    words = f"config show --budget 0.4 {closed}; echo status $? >ended"
    said = subprocess.run(
        ["sh", "-c", f"{sys.executable} -m ssl_dc {words}"], capture_output=True, text=True, timeout=HANGS, check=False
    )
    assert (here / "ended").read_text() == "status 0\n"
    assert "Traceback" not in said.stderr
    assert ("target: 0.4" in said.stdout) == (">&-" not in closed.split())


@pytest.mark.long
def test_nothing_that_is_said_goes_into_the_files_of_a_run_whose_streams_are_closed(
    here: Path, finished_run: ssl_dc.Run
) -> None:
    words = " ".join(as_options(SHORT))
    subprocess.run(
        ["sh", "-c", f"{sys.executable} -m ssl_dc train {words} --output run >&- 2>&-"], timeout=HANGS, check=True
    )
    assert_same_files(here / "run", finished_run.folder)


@pytest.mark.long
def test_a_resume_point_of_a_negative_step_is_passed_over(here: Path) -> None:
    whole = ssl_dc.train(TWO_BY_TWO, output=here / "whole").folder
    run = Path(shutil.copytree(whole, here / "run"))
    (run / "model.safetensors").unlink()
    for path in run.glob("checkpoints/*/progress.json"):
        record = json.loads(path.read_text())
        del record["checksum"]
        record["step"] = -record["step"]
        path.write_text(json.dumps({**record, "checksum": _checksum(record)}))
    assert "is damaged" in successful(called("train", "--resume", "run")).stderr
    assert_same_files(run, whole)


@pytest.mark.long
def test_each_training_of_a_process_has_its_own_precision(here: Path) -> None:
    for name, precision in (("one", "no"), ("two", "bf16"), ("three", "no")):
        ssl_dc.train({**SHORT, "training.precision": precision}, output=here / name)
    assert_same_files(here / "one", here / "three")
    assert (here / "one" / "metrics.jsonl").read_bytes() != (here / "two" / "metrics.jsonl").read_bytes()


@pytest.mark.parametrize("words", [("export", "run", "\x1bP"), ("\x1b[2J",), ("train", "--\x1b[2J")])
def test_words_of_a_wrong_call_cannot_reach_the_terminal_as_an_escape(here: Path, words: tuple[str, ...]) -> None:
    said = refused(*words)
    assert "\x1b" not in said
    assert "\\x1b" in said


@pytest.mark.long
def test_the_name_of_a_folder_cannot_reach_the_terminal_as_an_escape(here: Path) -> None:
    trained = successful(called("train", *as_options(SHORT), "--output", "\x1b[31mrun"))
    assert trained.stdout.endswith("run: \\x1b[31mrun\n")
    exported = done("export", "\x1b[31mrun", "--format", "torch", "--output", "\x1b[31mx.pt2")
    assert "written: \\x1b[31mx.pt2" in exported
    assert "\x1b" not in trained.stdout + trained.stderr + exported
    assert (here / "\x1b[31mx.pt2").exists()
