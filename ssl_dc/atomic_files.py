"""Writing files so that they are there whole or not at all."""

from __future__ import annotations

import errno
import os
import shutil
from contextlib import suppress
from pathlib import Path

from ssl_dc.errors import RunError


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file whole or not at all: under a temporary name, flushed to disk, then renamed.

    Raises:
        RunError: If it cannot be written; what was there before is untouched.
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
        flush_folder(path.parent)
    except OSError as error:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        raise RunError(f"cannot write {path} ({mebibytes(len(content))}): {_reason(error, path.parent)}") from error


def mebibytes(size: int) -> str:
    """A number of bytes, for people."""
    return f"{size / 2**20:.1f} MiB"


def _reason(error: OSError, folder: Path) -> str:
    reason = error.strerror or str(error)
    if error.errno not in (errno.ENOSPC, errno.EDQUOT):
        return reason
    return f"{reason}; {mebibytes(shutil.disk_usage(folder).free)} are free there"


def write_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8, whole or not at all."""
    write_bytes(path, text.encode())


def flush_folder(folder: Path) -> None:
    """Make renames inside a folder lasting."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
