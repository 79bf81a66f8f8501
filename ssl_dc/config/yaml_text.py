"""A complete config as YAML, with the source of each setting."""

from __future__ import annotations

import io
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.scalarstring import DoubleQuotedScalarString

from ssl_dc.config import Resolved
from ssl_dc.printable import printable


def annotated_yaml(resolved: Resolved) -> str:
    """The config as YAML, which ``--config`` reads, with the source of each setting as a comment."""
    writer = YAML()
    writer.width = 4096  # a setting and its comment stay on one line
    writer.representer.add_representer(type(None), lambda to, _none: to.represent_scalar("tag:yaml.org,2002:null", "null"))
    text = io.StringIO()
    writer.dump(_annotated(resolved.config.model_dump(mode="json"), "", resolved), text)
    return text.getvalue()


def _annotated(tree: dict[str, Any], prefix: str, resolved: Resolved) -> CommentedMap:
    commented = CommentedMap()
    for key, value in tree.items():
        if isinstance(value, dict):
            commented[key] = _annotated(value, f"{prefix}{key}.", resolved)
        else:
            commented[key] = _inline(value)
            commented.yaml_add_eol_comment(_one_line(resolved.provenance[f"{prefix}{key}"]), key)
    return commented


def _one_line(source: str) -> str:
    """A source as a comment, where a path may hold anything."""
    return printable(source).replace("\n", "\\n")


_SWITCHES = {"yes", "no", "on", "off"}
"""Words that YAML 1.1 readers take for true and false."""

_NEXT_LINE = "\x85"
"""A character that the writer leaves as it is, and the reader takes for the end of a line."""


def _inline(value: Any) -> Any:
    if isinstance(value, str) and (value in _SWITCHES or _NEXT_LINE in value):
        return DoubleQuotedScalarString(value)
    if not isinstance(value, list):
        return value
    sequence = CommentedSeq([_inline(item) for item in value])
    sequence.fa.set_flow_style()
    return sequence
