"""Files that are written whole or not at all, and read only if they are regular files.

What is written goes to a new file first, which no link can lead elsewhere. Only regular files are read: to open a FIFO or a
device could wait for ever.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from ssl_dc.errors import RunError

_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
"""Flags that make a file anew. They fail if anything has that name, a link included."""
_READ = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)
"""Flags that open a file without waiting for another process, as a FIFO otherwise would."""
_APPEND = os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file whole or not at all: under a new temporary name, flushed to disk, then renamed.

    A link that has the file's name is replaced, never followed.

    Raises:
        RunError: If it cannot be written; what was there before is untouched.
    """
    size = f" ({mebibytes(len(content))})"
    with _replacing(path, size) as partial, os.fdopen(os.open(partial, _NEW, 0o666), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Write a file of any size whole or not at all: the block writes it under a temporary name, then it is renamed.

    A link that has the file's name is replaced, never followed.

    Raises:
        RunError: If it cannot be written; what was there before is untouched.
    """
    with _replacing(path) as partial:
        os.close(os.open(partial, _NEW, 0o666))
        yield partial
        with partial.open("rb") as file:
            os.fsync(file.fileno())


@contextmanager
def _replacing(path: Path, size: str = "") -> Iterator[Path]:
    """A temporary name for a file that the block writes. Afterwards it gets its own name; if the block fails, it is gone.

    Args:
        path: The file.
        size: How large it is, in brackets after a space, for the message.

    Raises:
        RunError: If it cannot be written.
    """
    partial = partial_of(path)
    try:
        try:
            yield partial
            partial.replace(path)
        except BaseException:
            with suppress(OSError):
                partial.unlink(missing_ok=True)
            raise
        flush_folder(path.parent)
    except OSError as error:
        raise RunError(f"cannot write {path}{size}: {_reason(error, path.parent)}") from error


def partial_of(path: Path) -> Path:
    """A temporary name beside a file or folder that nothing has yet and nobody can foresee."""
    return path.with_name(f".{path.name}.{secrets.token_hex(8)}.partial")


def remove_partials(path: Path) -> None:
    """Remove what killed writings of a file have left beside it. Nobody may be writing it now."""
    for entry in path.parent.iterdir():
        if entry.name.startswith(f".{path.name}.") and is_partial(entry) and entry.is_file():
            with suppress(OSError):
                entry.unlink()


def remove_tree(path: Path) -> None:
    """Remove a folder with all that it holds, or whatever has its name; a link is not followed.

    What cannot be removed stays. Python's own function waits for ever at a FIFO.
    """
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()


def is_partial(entry: Path) -> bool:
    """Whether something is what an interrupted writing leaves behind: a file or folder of a temporary name, no link."""
    named = entry.name.startswith(".") and entry.name.endswith(".partial")
    return named and not entry.is_symlink() and (entry.is_file() or entry.is_dir())


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


def append_line(path: Path, line: str) -> None:
    """Add a line to a text file, which is made if it is not there.

    A file that has another name, too (a hard link), becomes a file of its own: what has the other name stays as it is.

    Raises:
        RunError: If it cannot be written, or is a link or no regular file.
    """
    content = f"{line}\n".encode()
    try:
        with os.fdopen(_regular(os.open(path, _APPEND, 0o666), path), "wb") as file:
            alone = os.fstat(file.fileno()).st_nlink == 1
            if alone:
                file.write(content)
        if not alone:
            write_bytes(path, read_bytes(path) + content)
    except OSError as error:
        raise RunError(f"cannot write {path}: {error.strerror or error}") from error


def open_regular(path: Path) -> BinaryIO:
    """Open a regular file for reading, without waiting for anything.

    Raises:
        OSError: If it cannot be opened, or is a folder, FIFO, socket or device.
    """
    return os.fdopen(_regular(os.open(path, _READ), path), "rb")


def read_bytes(path: Path, largest: int | None = None) -> bytes:
    """The content of a regular file.

    Args:
        path: The file. Links are followed.
        largest: Size in bytes that it may have at most; None for any.

    Raises:
        OSError: If it cannot be read, is a folder, FIFO, socket or device, or is larger than allowed.
    """
    with open_regular(path) as file:
        if largest is None:
            return file.read()
        content = file.read(largest + 1)
    if len(content) > largest:
        raise OSError(errno.EFBIG, f"larger than the {largest // 1024:,} KiB that such a file may have", str(path))
    return content


def read_text(path: Path, largest: int | None = None) -> str:
    """The text of a regular file in UTF-8, see :func:`read_bytes`.

    Raises:
        OSError: As :func:`read_bytes`.
        UnicodeDecodeError: If it is not UTF-8.
    """
    return read_bytes(path, largest).decode("utf-8")


def _regular(descriptor: int, path: Path) -> int:
    """The descriptor of an opened file, if that is a regular one; otherwise it is closed.

    Raises:
        OSError: If it is not.
    """
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return descriptor
    os.close(descriptor)
    raise OSError(errno.EINVAL, "not a regular file", str(path))


def flush_folder(folder: Path) -> None:
    """Make renames inside a folder lasting."""
    descriptor = os.open(folder, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0))
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
