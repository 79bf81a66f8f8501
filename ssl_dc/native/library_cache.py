"""Keeps compiled kernels between processes, in a folder that only its user can write to.

What is kept is executed later. So the folder and the file are checked after they were opened, links are refused, and the
bytes that were checked are the bytes that are loaded: neither another user nor a damaged disk can exchange them between.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import secrets
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ssl_dc.errors import RunError

FOLDER = "ssl-dc"
"""Name of the folder in ``XDG_CACHE_HOME``, by default ``~/.cache``."""
LARGEST = 64 * 2**20
"""Bytes of the largest library that is read."""
WRITABLE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH
DIGEST_BYTES = hashlib.sha256().digest_size


class CacheError(Exception):
    """The cache cannot be used; the text says why."""


@contextmanager
def cache_folder() -> Iterator[int]:
    """The descriptor of the cache folder, which is made if it is not there.

    Raises:
        CacheError: If there is none, or others can write to it.
    """
    base = os.environ.get("XDG_CACHE_HOME")
    try:
        path = Path(base if base else Path.home() / ".cache", FOLDER)
    except RuntimeError:
        raise CacheError("this user has no home folder, and XDG_CACHE_HOME is not set") from None
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with suppress(FileExistsError):
            path.mkdir(mode=0o700)
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise CacheError(f"{path} cannot be opened as a folder: {error.strerror or error}") from error
    try:
        if not _is_private(os.fstat(descriptor)):
            raise CacheError(f"{path} belongs to another user, or others can write there")
        yield descriptor
    finally:
        os.close(descriptor)


def read_library(folder: int, name: str) -> bytes | None:
    """The library that is kept under a name; None if there is none, or not a whole one that only this user can write.

    Args:
        folder: Descriptor of the cache folder.
        name: Name of the file.
    """
    try:  # O_NONBLOCK: opening a FIFO would wait for a writer
        descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    except OSError:
        return None
    with suppress(OSError), open(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if stat.S_ISREG(status.st_mode) and _is_private(status) and status.st_size <= LARGEST:
            content = file.read(LARGEST)
            library, digest = content[:-DIGEST_BYTES], content[-DIGEST_BYTES:]
            if digest == _digest(name, library):
                return library
    return None


def keep_library(folder: int, name: str, library: bytes) -> None:
    """Keep a library under a name, whole or not at all. Several processes may do so at once.

    Args:
        folder: Descriptor of the cache folder.
        name: Name of the file; whatever is there is replaced.
        library: The content of the shared library.

    Raises:
        CacheError: If it cannot be written.
    """
    partial = f".{name}.{secrets.token_hex(8)}"
    try:
        descriptor = os.open(
            partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=folder
        )
        try:
            with open(descriptor, "wb") as file:
                file.write(library + _digest(name, library))
            os.rename(partial, name, src_dir_fd=folder, dst_dir_fd=folder)
        except OSError:
            os.unlink(partial, dir_fd=folder)
            raise
    except OSError as error:
        raise CacheError(f"{name} cannot be written: {error.strerror or error}") from error


def load_library(library: bytes) -> ctypes.CDLL:
    """Load a shared library from its content, by way of a file that no other user can reach.

    Raises:
        RunError: If it cannot be loaded.
    """
    try:
        return _load_from_memory(library)
    except (AttributeError, OSError):  # no memory files on this system, no /proc, or nothing may be executed from them
        pass
    try:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "kernel.so")
            path.write_bytes(library)
            return ctypes.CDLL(str(path))
    except OSError as error:
        raise RunError(f"the compiled kernel cannot be loaded: {error}") from error


def _load_from_memory(library: bytes) -> ctypes.CDLL:
    descriptor = os.memfd_create("ssl-dc-kernel", os.MFD_CLOEXEC)
    try:
        with open(descriptor, "wb", closefd=False) as file:
            file.write(library)
        # It stays open: the loader takes a second library of the same path, hence of the same number, for this one.
        return ctypes.CDLL(f"/proc/self/fd/{descriptor}")
    except OSError:
        os.close(descriptor)
        raise


def _is_private(status: os.stat_result) -> bool:
    """Whether this user owns a file or folder, and only this user can write to it."""
    return status.st_uid == os.geteuid() and not status.st_mode & WRITABLE_BY_OTHERS


def _digest(name: str, library: bytes) -> bytes:
    return hashlib.sha256(name.encode() + b"\0" + library).digest()
