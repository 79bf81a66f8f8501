"""YAML from a file that may come from anybody: its size, its numbers and what its aliases stand for are bounded first.

A few lines of YAML can stand for endlessly many values, by aliases and merge keys. So the nodes of a document are counted,
aliases written out, before any value is made of them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode

from ssl_dc.atomic_files import read_text
from ssl_dc.errors import ConfigError

LARGEST_CONFIG = 2**17
"""Size in bytes of a config file, at most. One with every setting has a thirtieth of that."""
MOST_VALUES = 10_000
"""Values in a config file, aliases written out, at most."""
MOST_DIGITS = 4000
"""Digits of an integer, at most: Python does not print more than 4,300."""

_INTEGER = "tag:yaml.org,2002:int"


def read_yaml(path: Path) -> Any:
    """The document of a YAML (or JSON) file, its mappings with the lines of their keys; None if it is empty.

    Raises:
        ConfigError: If the file cannot be read, is no regular file, is not YAML, or is larger than any config.
    """
    try:
        text = read_text(path, LARGEST_CONFIG)
    except UnicodeDecodeError as error:
        raise ConfigError(f"cannot read the config {path}: it is not UTF-8 ({error.reason})") from error
    except OSError as error:
        raise ConfigError(f"cannot read the config {path}: {error.strerror or error}") from error
    try:
        yaml = YAML(typ="rt")
        node = yaml.compose(text)
        if node is None:
            return None
        _count(node, path, {}, set())
        return yaml.constructor.construct_document(node)  # not yaml.load, which would parse the text once more
    except MarkedYAMLError as error:
        line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        reason = " ".join(str(error.problem or error.context or "").split())
        raise ConfigError(f"{path}{line}: not valid YAML or JSON{reason and f': {reason}'}") from error
    except (YAMLError, ValueError, TypeError, RecursionError, AttributeError) as error:  # what its constructors may raise
        raise ConfigError(
            f"{path}: not valid YAML or JSON: {str(error).splitlines()[0] if str(error) else error!r}"
        ) from error


def _count(node: Node, path: Path, known: dict[int, int], above: set[int]) -> int:
    """How many values a node stands for, those behind aliases and merge keys counted each time.

    Args:
        node: The node.
        path: The file, for messages.
        known: Counts of nodes by identity, to be added to: a node with aliases is looked at once.
        above: Identities of the nodes that it is inside of.

    Raises:
        ConfigError: If they are too many, or a key or number is none that a config may have.
    """
    if id(node) in known:
        return known[id(node)]
    place = f"{path}:{node.start_mark.line + 1}"
    if id(node) in above:
        raise ConfigError(f"{place}: an alias stands for something that holds it, which has no end")
    if isinstance(node, ScalarNode):
        if node.tag == _INTEGER and len(node.value) > MOST_DIGITS:
            raise ConfigError(f"{place}: a number of {len(node.value):,} digits, which no setting takes")
        return 1
    children = node.value
    if isinstance(node, MappingNode):
        for key, _ in node.value:
            if not isinstance(key, ScalarNode):
                raise ConfigError(f"{path}:{key.start_mark.line + 1}: a key must be a single word, not a list or mapping")
        children = [value for _, value in node.value]
    total = 1 + sum(_count(child, path, known, above | {id(node)}) for child in children)
    if total > MOST_VALUES:
        raise ConfigError(
            f"{place}: holds more than {MOST_VALUES:,} values, aliases and merge keys written out, which no config does"
        )
    known[id(node)] = total
    return total
