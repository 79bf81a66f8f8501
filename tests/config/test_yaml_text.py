"""A shown config means the same to every YAML reader."""

from __future__ import annotations

from ruamel.yaml import YAML

from ssl_dc.config import resolve
from ssl_dc.config.yaml_text import annotated_yaml


def test_words_that_older_readers_take_for_switches_are_quoted() -> None:
    text = annotated_yaml(resolve())
    assert 'precision: "no"' in text
    older = YAML(typ="safe", pure=True)
    older.version = (1, 1)  # type: ignore[assignment]  # where a bare no is false
    assert older.load(text)["training"]["precision"] == "no"
