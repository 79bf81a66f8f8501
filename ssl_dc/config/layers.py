"""Layers of settings, from recipes and files to single overrides, and how they are merged with their sources."""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ssl_dc.config.yaml_reading import read_yaml
from ssl_dc.errors import ConfigError
from ssl_dc.plugins.kinds import config_sections, default_part


@dataclass(frozen=True)
class Layer:
    """Settings that come from one place.

    Attributes:
        values: Values by dotted key.
        sources: Where each value was given, by dotted key; for messages and ``config show``.
    """

    values: Mapping[str, Any]
    sources: Mapping[str, str] = field(default_factory=dict)


def uniform_layer(values: Mapping[str, Any], source: str) -> Layer:
    """A layer whose settings all come from one source."""
    return Layer(dict(values), dict.fromkeys(values, source))


def file_layer(path: Path) -> Layer:
    """The settings of a YAML (or JSON) file, each with its line.

    Raises:
        ConfigError: If the file cannot be read, is not YAML, repeats a key, is not a mapping, or is larger than any config.
    """
    document = read_yaml(path)
    if document is None:
        return Layer({})
    if not isinstance(document, Mapping):
        kind = "list" if isinstance(document, list) else "single value"
        raise ConfigError(f"{path}: a config is a mapping of sections, such as 'objective:', not a {kind}")
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    for key, value, line_number in _leaves(document):
        if key in values:
            raise ConfigError(f"{path}:{line_number + 1}: {key} is given a second time; the first is at {sources[key]}")
        values[key] = value
        sources[key] = f"{path}:{line_number + 1}"
    return normalised(Layer(values, sources))


def override_layer(assignments: Iterable[str], flag: str = "--set ") -> Layer:
    """The settings of ``--set dotted.key=value`` options. A value is JSON, or else the text itself.

    Args:
        assignments: Texts ``dotted.key=value``.
        flag: What the user writes before the key.

    Raises:
        ConfigError: If one has no ``=`` or no key.
    """
    values: dict[str, Any] = {}
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals or not key.strip():
            raise ConfigError(f"{flag}{assignment}: write {flag}dotted.key=value, such as {flag}objective.invariance=10")
        values[key.strip()] = json_or_text(text)
    return normalised(Layer(values, {key: f"{flag}{key}" for key in values}))


def json_or_text(text: str) -> Any:
    """The value of a user's word: what it says as JSON, or else the text itself."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def normalised(layer: Layer) -> Layer:
    """The layer with ``objective: vicreg`` written out as ``objective.name: vicreg``, and so for every kind of part.

    ``budget: 0.3`` is written out as ``budget.target: 0.3``. A section with nothing in it (``training:``) sets nothing.
    """
    meant = {**dict.fromkeys(config_sections(), "name"), "budget": "target"}
    shorthand = {section: key for section, key in meant.items() if layer.values.get(section, {}) != {}}
    empty = {section for section in (*config_sections(), "budget", "training") if layer.values.get(section, {}) is None}

    def full(key: str) -> str:
        return f"{key}.{shorthand[key]}" if key in shorthand else key

    return Layer(
        {full(key): value for key, value in layer.values.items() if key not in empty},
        {full(key): source for key, source in layer.sources.items() if key not in empty},
    )


def merged(layers: Iterable[Layer]) -> Layer:
    """One layer of several, the weakest first.

    A layer that names another part drops what was set for the earlier one, and one that says a budget drops the grid.
    """
    below = Layer({})
    for layer in layers:
        dropped = ("budget.grid",) if "budget.target" in layer.values else ()
        renamed = tuple(
            f"{kind}."
            for kind in config_sections()
            if f"{kind}.name" in layer.values
            and layer.values[f"{kind}.name"] != below.values.get(f"{kind}.name", default_part(kind))
        )
        kept = {key: value for key, value in below.values.items() if not key.startswith((*renamed, *dropped))}
        below = stacked([Layer(kept, {key: below.sources[key] for key in kept}), layer])
    return below


def stacked(layers: Iterable[Layer]) -> Layer:
    """One layer of several, the weakest first: the last value of each key counts."""
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    for layer in layers:
        values.update(layer.values)
        sources.update(layer.sources)
    return Layer(values, sources)


def nested(values: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted keys as nested mappings.

    Raises:
        ConfigError: If a key is both a value and a section.
    """
    tree: dict[str, Any] = {}
    for key, value in values.items():
        *sections, last = key.split(".")
        branch = tree
        for section in sections:
            branch = branch.setdefault(section, {})
            if not isinstance(branch, dict):
                raise ConfigError(f"{key}: {section!r} is given both a value and keys below it")
        if value == {}:
            branch.setdefault(last, {})
        elif isinstance(branch.get(last), dict):
            raise ConfigError(f"{key} is given both a value and keys below it")
        else:
            branch[last] = value
    return tree


def flattened(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as dotted keys. An empty mapping has none."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat.update(flattened(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _leaves(tree: Any, prefix: str = "") -> Iterator[tuple[str, Any, int]]:
    """Dotted key, value and line (from 0) of each leaf of a document that keeps its lines."""
    for key, value in tree.items():
        place = (tree.lc.data or {}).get(key)  # a merged key (<<) has no line
        line = place[0] if place else tree.lc.line
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, f"{prefix}{key}.")
        elif isinstance(value, Mapping):
            yield f"{prefix}{key}", {}, line  # an empty section
        else:
            yield f"{prefix}{key}", _plain(value), line


def _plain(value: Any) -> Any:
    """A value without the wrappers in which ruamel.yaml keeps its layout."""
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, bool):
        return value
    if isinstance(value, datetime.date):
        return str(value)  # no setting is a date, but a folder may be named like one
    for plain in (int, float, str):
        if isinstance(value, plain):
            return plain(value)
    return value
