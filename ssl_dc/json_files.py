"""Small records in JSON files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ssl_dc.atomic_files import read_text

LARGEST_RECORD = 2**20
"""Bytes of the largest file that is read as a record, unless its reader says otherwise."""


def read_record(path: Path, largest: int = LARGEST_RECORD) -> dict[str, Any]:
    """The JSON object in a regular file.

    Args:
        path: The file, in UTF-8.
        largest: Most bytes that it may have.

    Raises:
        OSError: If it cannot be read, is no regular file, or is larger.
        ValueError: If it does not hold a JSON object in UTF-8.
    """
    try:
        record = json.loads(read_text(path, largest))
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if not isinstance(record, dict):
        raise ValueError("it does not hold a JSON object")
    return record
