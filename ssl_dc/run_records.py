"""Reads what a run writes while it trains, and bears files that are not whole: they may be in the writing."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ssl_dc.atomic_files import read_bytes
from ssl_dc.errors import RunError
from ssl_dc.printable import name_of

LoggedStep = Mapping[str, float]
"""The numbers of one line of ``metrics.jsonl``, by name; ``step`` is among them."""


class JsonLines(NamedTuple):
    """The lines of a file that has a JSON object in each.

    Attributes:
        objects: The objects, in order.
        damaged: The numbers, from 1, of the lines that hold something else, such as a line that was half written.
        total: How many lines there are.
    """

    objects: Sequence[dict[str, Any]]
    damaged: Sequence[int]
    total: int


def logged_steps(lines: JsonLines) -> list[LoggedStep]:
    """The lines of ``metrics.jsonl``, in order, with their finite numbers."""
    return [logged for line in lines.objects if "step" in (logged := _numbers(line))]


def json_lines(path: Path) -> JsonLines:
    """The lines of a file that has a JSON object in each; none if there is no file.

    Raises:
        RunError: If the file cannot be read.
    """
    values = [_object(text) for text in _text(path).splitlines()]
    damaged = [number for number, value in enumerate(values, start=1) if value is None]
    return JsonLines([value for value in values if value is not None], damaged, len(values))


def json_object(path: Path) -> dict[str, Any] | None:
    """The JSON object that a file holds; None if there is no file, or something else in it.

    Raises:
        RunError: If the file cannot be read.
    """
    return _object(_text(path))


def result_faults(result: Mapping[str, Any]) -> list[str]:
    """What is damaged in the content of a ``result.json``: for each field of a wrong type, the field and what it should be.

    Args:
        result: The JSON object. Fields that it lacks are no faults: an older version may have written it.
    """
    faults = [
        f"{name} is not {what}" for name, (what, fits) in _OF_RESULT.items() if name in result and not fits(result[name])
    ]
    routes = result.get("routes")
    for route, reached in routes.items() if isinstance(routes, dict) else ():
        if not isinstance(reached, dict):
            faults.append(f"routes.{name_of(route)} is not an object")
            continue
        numbers = {name: reached[name] for name in _OF_ROUTE if name in reached}
        faults += [
            f"routes.{name_of(route)}.{name} is not a number{' or null' if _OF_ROUTE[name] else ''}"
            for name, value in numbers.items()
            if as_number(value) is None and not (value is None and _OF_ROUTE[name])
        ]
    return faults


def as_number(value: Any) -> float | None:
    """A value of JSON as a number; None if it is something else."""
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def _is_sentences(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(text, str) for text in value)


_OF_ROUTE = {"knn1": True, "knn1_untrained": True, "macs": False, "ratio": False}
"""The numbers of a route in a ``result.json``, and whether they may be missing, as null."""
_OF_RESULT: Mapping[str, tuple[str, Callable[[Any], bool]]] = {
    "routes": ("an object", lambda value: isinstance(value, dict)),
    "measured_on": ("a text", lambda value: isinstance(value, str)),
    "findings": ("a list of sentences", _is_sentences),
    "advice": ("a list of sentences", _is_sentences),
}
"""What the other fields of a ``result.json`` that tables show must be, in words, and whether a value is that."""


def _numbers(line: Mapping[str, Any]) -> dict[str, float]:
    return {
        name: float(value)
        for name, value in line.items()
        if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    }


def _object(text: str) -> dict[str, Any] | None:
    """The JSON object that a text holds; None if it holds something else."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _text(path: Path) -> str:
    try:
        return read_bytes(path).decode("utf-8", errors="replace")
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise RunError(f"cannot read {path}: {error.strerror or error}") from error
