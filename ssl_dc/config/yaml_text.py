"""A complete config as YAML, with the source of each setting."""

from __future__ import annotations

import io
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.scalarstring import DoubleQuotedScalarString

from ssl_dc.config import Resolved


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
            commented.yaml_add_eol_comment(resolved.provenance[f"{prefix}{key}"], key)
    return commented


_SWITCHES = {"yes", "no", "on", "off"}
"""Words that YAML 1.1 readers take for true and false."""


def _inline(value: Any) -> Any:
    if isinstance(value, str) and value in _SWITCHES:
        return DoubleQuotedScalarString(value)
    if not isinstance(value, list):
        return value
    sequence = CommentedSeq(value)
    sequence.fa.set_flow_style()
    return sequence
