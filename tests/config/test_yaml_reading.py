"""YAML that is large, or stands for much, is refused before it is expanded."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from ssl_dc.cli import main
from ssl_dc.config import resolve, uniform_layer
from ssl_dc.config.layers import file_layer
from ssl_dc.config.yaml_reading import LARGEST_CONFIG, read_yaml
from ssl_dc.config.yaml_text import annotated_yaml
from ssl_dc.errors import ConfigError

SECONDS = 60.0
"""Processor time that a reading may take; each takes a few at most."""


def merges(count: int) -> str:
    lines = ["m0: &m0", "  k0: 1"]
    for number in range(1, count):
        lines += [f"m{number}: &m{number}", f"  <<: *m{number - 1}", f"  k{number}: 1"]
    return "\n".join(lines)


def doubling(count: int) -> str:
    lines = ["a0: &a0 [1, 2]"]
    return "\n".join([*lines, *(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]" for n in range(1, count))])


SLOW = {
    "merge keys, 127 KB": (merges(3300), "more than 10,000 values"),
    "merge keys, a few lines": (merges(300), "more than 10,000 values"),
    "aliases that double": (doubling(60), "more than 10,000 values"),
    "a list of 5 MB": ("a: [" + "1, " * 1_700_000 + "]", "larger than the 128 KiB"),
    "a list of 120 KB": ("a: [" + "1," * 60_000 + "]", "more than 10,000 values"),
    "50 MB of comment": ("# " + "x" * 50_000_000, "larger than the 128 KiB"),
    "as much comment as is read": ("# " + "x" * (LARGEST_CONFIG - 10), None),
    "many lines of comment": ("#\n" * (LARGEST_CONFIG // 2), None),
    "brackets": ("[" * 20_000, "not valid YAML"),
    "a hexadecimal integer": ("seed: 0x" + "f" * 5000, "a number of 5,002 digits"),
    "a decimal integer": ("seed: " + "9" * 5000, "a number of 5,000 digits"),
    "a binary integer": ("seed: 0b" + "1" * 20_000, "a number of 20,002 digits"),
    "a mapping as a key": ("{a: 1}: b", "a key must be a single word"),
    "a list as a key": ("? [a, b]\n: c", "a key must be a single word"),
    "a mapping as a key, within": ("training:\n  ? {a: {b: 1}}\n  : c", ":2: a key must be a single word"),
    "an alias as a key": ("a: &a [1]\n*a : 2", "a key must be a single word"),
}


@pytest.mark.long
@pytest.mark.parametrize("name", SLOW)
def test_what_would_take_for_ever_is_refused_at_once(tmp_path: Path, name: str) -> None:
    text, said = SLOW[name]
    path = tmp_path / "config.yaml"
    path.write_text(text)
    began = time.process_time()
    result = CliRunner().invoke(main, ["config", "validate", str(path)])
    assert time.process_time() - began < SECONDS
    if said is None:
        assert result.exit_code == 0, result.stderr
        return
    assert result.exit_code == 2, result.exception
    assert said in result.stderr
    assert result.stderr.startswith(f"ssl-dc: {path}") or "cannot read the config" in result.stderr
    assert len(result.stderr) < 1000


def test_what_aliases_stand_for_is_counted_not_what_is_written(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("a: &a [1, 2, 3]\nb: {x: *a, y: *a}\nc:\n  <<: {d: *a}\n")
    assert read_yaml(path)["c"]["d"] == [1, 2, 3]
    long = ", ".join("1" for _ in range(99))
    path.write_text(f"a: &a [{long}]\nb: [{', '.join(['*a'] * 98)}]\n")  # 1 + 100 + 1 + 9,800
    assert len(read_yaml(path)["b"]) == 98
    path.write_text(f"a: &a [{long}]\nb: [{', '.join(['*a'] * 99)}]\n")  # 1 + 100 + 1 + 9,900
    with pytest.raises(ConfigError, match="more than 10,000 values"):
        read_yaml(path)


@pytest.mark.parametrize("kind", ["FIFO", "device", "folder"])
def test_only_a_regular_file_is_a_config(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "config.yaml"
    if kind == "FIFO":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path = Path("/dev/zero")
    for words in (["config", "validate", str(path)], ["train", "--config", str(path)]):
        result = CliRunner().invoke(main, words)
        assert result.exit_code == 2, result.exception
        assert f"cannot read the config {path}: " in result.stderr


@pytest.mark.long
@settings(max_examples=100, deadline=None)
@given(st.text(st.characters(codec="utf-8", exclude_characters="\0/"), max_size=8))
def test_config_show_loses_nothing_of_a_text(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    folder = tmp_path_factory.mktemp("show")
    shown = annotated_yaml(resolve([uniform_layer({"data.root": f"/x\x85{text}"}, f"a path {text}")]))
    (folder / "shown.yaml").write_bytes(shown.encode("utf-8", "surrogatepass"))
    assert file_layer(folder / "shown.yaml").values["data.root"] == f"/x\x85{text}"
