"""The lock of a folder, such as a run's: one living process writes in it, others are told which.

The operating system holds the lock for the process and frees it when the process ends, however that comes about. So a lock
is never left behind by a process that was killed; only its file may be, and that hinders nobody.
"""

from __future__ import annotations

import errno
import json
import os
import socket
import stat
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

from ssl_dc.errors import InUseError, RunError, Terminated
from ssl_dc.json_files import read_record
from ssl_dc.printable import name_of

try:
    import fcntl
except ImportError:  # not a Unix
    fcntl = None  # type: ignore[assignment]

LOCK_FILE = ".lock"
"""The file in a run folder that is locked, and says who holds it."""
_LARGEST = 4096
"""Size in bytes of the record in it, at most."""
_OPEN = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)
_NO_LOCKS = {errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL}
"""What a file system without locks answers."""

_held: dict[int, Path] = {}
"""The folders whose locks this process holds, by the descriptors of the locks."""
_left: list[Path] = []
"""The folder whose lock this process has freed because a signal ended what it did there, if there is one."""


@contextmanager
def sole_writer(folder: Path) -> Iterator[None]:
    """Hold the lock of a run folder.

    Args:
        folder: The folder, which exists.

    Raises:
        InUseError: If another process holds it; the message says which.
        RunError: If the lock's file cannot be made.
    """
    descriptor = _locked(folder)
    _held[descriptor] = folder
    try:
        _sign(descriptor)
        yield
    except (KeyboardInterrupt, Terminated):
        _left[:] = [folder]
        raise
    finally:
        _release(descriptor, folder / LOCK_FILE)


def check_not_held(folder: Path) -> None:
    """Check that no process holds the lock of a folder, without taking it.

    Raises:
        InUseError: If one does; the message says which.
    """
    path = folder / LOCK_FILE
    with suppress(OSError):  # there is no such file, or it may not be opened
        descriptor = os.open(path, _OPEN & ~os.O_CREAT)
        try:
            _check_plain(descriptor, path)
            _lock(descriptor, folder)
        finally:
            os.close(descriptor)


def last_held_here() -> Path | None:
    """The folder whose lock this process took last of those that it holds; else the one that a signal made it leave."""
    return next(iter([*reversed(_held.values()), *_left]), None)


def is_held(folder: Path) -> bool:
    """Whether a process holds the lock of a folder."""
    try:
        check_not_held(folder)
    except InUseError:
        return True
    return False


def _locked(folder: Path) -> int:
    """The descriptor of the lock's file, locked."""
    path = folder / LOCK_FILE
    while True:
        try:
            descriptor = os.open(path, _OPEN, 0o666)
        except OSError as error:
            raise RunError(f"cannot write {path}: {error.strerror or error}") from error
        try:
            _check_plain(descriptor, path)
            _lock(descriptor, folder)
        except BaseException:
            os.close(descriptor)
            raise
        if _is_at(descriptor, path):
            return descriptor
        os.close(descriptor)  # its holder removed it in this moment; the next one is made anew


def _check_plain(descriptor: int, path: Path) -> None:
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
        raise RunError(f"{path} is not a file of its own, but a device, FIFO or another name of a file; remove it")


def _lock(descriptor: int, folder: Path) -> None:
    if fcntl is None:
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _NO_LOCKS:
            warnings.warn(
                f"the file system of {folder} has no locks: nothing keeps two trainings from writing in it at once",
                stacklevel=2,
            )
            return
        if error.errno not in (errno.EAGAIN, errno.EACCES):
            raise RunError(f"cannot lock {folder / LOCK_FILE}: {error.strerror or error}") from error
        raise InUseError(f"{folder} is in use: {_holder(folder / LOCK_FILE)} works in it; wait for its end") from None


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.lstat(path))
    except OSError:
        return False


def _sign(descriptor: int) -> None:
    """Write into the lock's file who holds it."""
    now = datetime.now().astimezone().isoformat(timespec="seconds")
    record = json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": now})
    with suppress(OSError):  # a full disk: the lock holds, only its holder is not named
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, record.encode(), 0)


def _holder(path: Path) -> str:
    """Who holds the lock, as its file says."""
    time.sleep(0.1)  # whoever has just locked it is about to write its name
    try:
        record = read_record(path, _LARGEST)
        return f"process {int(record['pid'])} on {name_of(str(record['host']))} (since {name_of(str(record['since']))})"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"


def _release(descriptor: int, path: Path) -> None:
    if descriptor not in _held:  # this is a child process, which has left the lock to its parent
        return
    del _held[descriptor]
    if _is_at(descriptor, path):
        with suppress(OSError):
            path.unlink()
    with suppress(OSError):
        os.close(descriptor)


def _forget() -> None:
    """Leave the locks to the parent process: a child that outlives it must not hold them."""
    for descriptor in _held:
        with suppress(OSError):
            os.close(descriptor)
    _held.clear()
    _left.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
