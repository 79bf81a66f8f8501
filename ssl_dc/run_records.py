"""Reads what a run writes while it trains, and bears files that are not whole: they may be in the writing."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ssl_dc.atomic_files import read_bytes
from ssl_dc.errors import RunError

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
