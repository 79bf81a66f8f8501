"""Text from a stranger's file cannot steer the terminal that shows it."""

from __future__ import annotations

import io
import os
import unicodedata
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from rich.console import Console

from ssl_dc.cli import main, tables
from ssl_dc.cli.progress import ProgressBar, ProgressLines
from ssl_dc.printable import LONGEST_NAME, name_of, printable

EVIL = "\x1b]0;owned\x07\x1b[2J\u202egpj.\udcff[bold]"


@given(st.text(st.characters(codec=None)))
def test_what_is_shown_has_no_control_characters_and_can_be_encoded(text: str) -> None:
    shown = printable(text)
    assert not [c for c in shown if c not in "\n\t" and unicodedata.category(c).startswith("C")]
    shown.encode()
    assert "\n" not in name_of(text)
    assert len(name_of(text)) <= LONGEST_NAME + 3


@pytest.mark.parametrize("text", ["plain", "gro\u00df, \u4e2d\u6587 \u2013 \U0001f600", "two\nlines\tand a tab"])
def test_ordinary_text_is_left_alone(text: str) -> None:
    assert printable(text) == text


def test_what_is_written_out_can_be_read() -> None:
    assert printable("\x1b[2J") == "\\x1b[2J"
    assert printable("\u202e\udcff") == "\\u202e\\udcff"


def clean(text: str) -> bool:
    return not any(c in text for c in "\x1b\x07\u202e\udcff")


@pytest.mark.parametrize("watcher", [ProgressLines, ProgressBar])
def test_messages_of_training_are_shown_as_text(watcher: type, capsys: pytest.CaptureFixture[str]) -> None:
    watcher().on_message(EVIL)
    said = capsys.readouterr().err
    assert clean(said)
    assert "[bold]" in said


def test_cells_of_tables_are_shown_as_text(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(tables, "Console", lambda **_: Console(file=stream, width=200, force_terminal=False))
    tables.print_columns(EVIL, ["name"], [{"name": EVIL}])
    assert clean(stream.getvalue())
    assert stream.getvalue().count("[bold]") == 2


def test_an_error_shows_the_name_of_a_file_as_text(tmp_path: Path) -> None:
    folder = os.fsencode(tmp_path) + b"/data/train/\x1b]0;owned\x07\xff"
    os.makedirs(folder)
    Image.new("RGB", (8, 8)).save(folder + b"/a.png", format="PNG")
    os.makedirs(os.fsencode(tmp_path) + b"/data/val/other\x1b[2J")
    words = ["train", "--data", "folder", "--data-root", str(tmp_path / "data"), "--output", str(tmp_path / "run")]
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 2
    assert "\x1b" not in result.stderr
    assert "other\\x1b[2J" in result.stderr
    assert "\\udcff" in result.stderr
