"""Text from a stranger's file cannot steer the terminal that shows it."""

from __future__ import annotations

import io
import os
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from rich.console import Console

from ssl_dc.cli import main, tables
from ssl_dc.printable import LONGEST_NAME, name_of, printable
from ssl_dc.progress.display import Display
from ssl_dc.progress.figures import Figures
from ssl_dc.progress.lines import Lines
from ssl_dc.progress.terminal import Terminal

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
    assert printable("\u2028\u2029") == "\\u2028\\u2029"


def clean(text: str) -> bool:
    return not any(c in text for c in "\x1b\x07\u202e\udcff")


@pytest.mark.parametrize("display", [Lines, Terminal])
def test_messages_of_training_are_shown_as_text(
    display: Callable[[Figures], Display], capsys: pytest.CaptureFixture[str]
) -> None:
    display(Figures()).message(EVIL)
    said = capsys.readouterr().err
    assert clean(said)
    assert "[bold]" in said


def test_cells_of_tables_are_shown_as_text(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(tables, "Console", lambda **_: Console(file=stream, width=200, force_terminal=False))
    tables.print_columns(EVIL, ["name"], [{"name": EVIL}])
    assert clean(stream.getvalue())
    assert stream.getvalue().count("[bold]") == 2


@pytest.mark.long
def test_an_error_shows_the_name_of_a_file_as_text(tmp_path: Path) -> None:
    """A labelled picture that cannot be read ends the training, which names it."""
    for name in (b"\x1b]0;owned\x07\xff", b"other"):
        folder = os.fsencode(tmp_path) + b"/data/train/" + name
        os.makedirs(folder)
        for number in range(8):
            Image.effect_noise((64, 64), 90 + number).convert("RGB").save(folder + b"/%d.png" % number, format="PNG")
    broken = os.fsencode(tmp_path) + b"/data/train/\x1b]0;owned\x07\xff/3.png"
    whole = Path(os.fsdecode(broken)).read_bytes()
    Path(os.fsdecode(broken)).write_bytes(whole[: len(whole) // 2])
    small = ["--width", "4", "--image-size", "8", "--batch-size", "4", "--epochs", "1", "--workers", "0"]
    data = ["--data", "folder", "--data-root", str(tmp_path / "data")]
    result = CliRunner().invoke(main, ["train", *data, *small, "--output", str(tmp_path / "run")])
    assert result.exit_code != 0
    assert "\x1b" not in result.stderr
    assert "\\x1b]0;owned" in result.stderr
    assert "\\udcff" in result.stderr
