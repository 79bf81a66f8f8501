"""Reads what a run writes while it trains, and bears files that are not whole: they may be in the writing."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ssl_dc.atomic_files import read_bytes
from ssl_dc.errors import RunError

LoggedStep = Mapping[str, float]
"""The numbers of one line of ``metrics.jsonl``, by name; ``step`` is among them."""


def logged_steps(path: Path) -> list[LoggedStep]:
    """The lines of ``metrics.jsonl``, in order, with their finite numbers.

    Raises:
        RunError: If the file cannot be read.
    """
    return [logged for line in json_lines(path) if "step" in (logged := _numbers(line))]


def json_lines(path: Path) -> list[dict[str, Any]]:
    """The JSON objects of a file that has one in each line; none if there is no file.

    Raises:
        RunError: If the file cannot be read.
    """
    return _objects(_text(path).splitlines())


def json_object(path: Path) -> dict[str, Any] | None:
    """The JSON object that a file holds; None if there is no file, or something else in it.

    Raises:
        RunError: If the file cannot be read.
    """
    found = _objects([_text(path)])
    return found[0] if found else None


def _numbers(line: Mapping[str, Any]) -> dict[str, float]:
    return {
        name: float(value)
        for name, value in line.items()
        if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    }


def _objects(texts: Sequence[str]) -> list[dict[str, Any]]:
    found = []
    for text in texts:
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            continue
        if isinstance(value, dict):
            found.append(value)
    return found


def _text(path: Path) -> str:
    try:
        return read_bytes(path).decode("utf-8", errors="replace")
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise RunError(f"cannot read {path}: {error.strerror or error}") from error
