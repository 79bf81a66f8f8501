"""Records are read from regular files of a bounded size, and are JSON objects."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ssl_dc.json_files import LARGEST_RECORD, read_record


def test_a_record_is_read(tmp_path: Path) -> None:
    (tmp_path / "r.json").write_text('{"a": [1, "ä"]}', encoding="utf-8")
    assert read_record(tmp_path / "r.json") == {"a": [1, "ä"]}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "Expecting value"),
        (b"{", "Expecting property name"),
        (b"[1]", "does not hold a JSON object"),
        (b'"text"', "does not hold a JSON object"),
        (b'{"a": "\xff"}', "utf-8"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"a": ' + b"9" * 5000 + b"}", "digits"),
    ],
)
def test_anything_else_is_a_value_error(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "r.json").write_bytes(content)
    with pytest.raises(ValueError, match=said):
        read_record(tmp_path / "r.json")


def test_a_file_that_is_too_large_or_not_regular_is_an_os_error(tmp_path: Path) -> None:
    (tmp_path / "large.json").write_bytes(b"{" + b" " * LARGEST_RECORD + b"}")
    os.mkfifo(tmp_path / "fifo")
    for name in ("large.json", "fifo", "missing"):
        with pytest.raises(OSError, match=name):
            read_record(tmp_path / name)
    assert read_record(tmp_path / "large.json", LARGEST_RECORD + 2) == {}
