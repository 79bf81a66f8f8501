"""Compiles a kernel with the machine's own compiler when it is first wanted, and keeps the result.

A kernel is a C file of a room of this package, such as ``kernel.c``. It may include headers of its room.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import warnings
from functools import cache
from importlib.resources import files
from pathlib import Path

from ssl_dc.errors import RunError, SlowerWarning
from ssl_dc.native.fork_safe import ForkSafeLock
from ssl_dc.native.library_cache import CacheError, cache_folder, keep_library, load_library, read_library

NO_KERNEL = "SSL_DC_NO_KERNEL"
"""Environment variable. If it is set and not empty, nothing is compiled and torch does everything."""
KERNEL = "kernel.c"
"""The file of a room's only or first kernel."""
FLAGS = ("-O3", "-march=native", "-std=gnu11", "-ffp-contract=fast", "-shared", "-fPIC", "-pthread")
"""-ffast-math is not among them: it would lose NaN."""
COMPILE_SECONDS = 120
PROCESSOR_FIELDS = {
    *("vendor_id", "cpu family", "model", "model name", "stepping", "flags"),  # x86
    *("features", "cpu implementer", "cpu architecture", "cpu variant", "cpu part"),  # Arm
    *("isa", "uarch", "cpu", "machine"),  # RISC-V, POWER
}
"""Fields of /proc/cpuinfo, in lower case, that say what kind of processor it is."""

_one_thread = ForkSafeLock()


def kernel_library(package: str, file: str = KERNEL, *flags: str) -> ctypes.CDLL:
    """A kernel of a room as a shared library for this machine; it is compiled if it is not kept yet.

    Args:
        package: The room, such as ``ssl_dc.compiled``.
        file: Its C file.
        flags: For the compiler, after :data:`FLAGS`.

    Raises:
        RunError: If kernels are switched off, there is no C compiler, or the kernel cannot be compiled or loaded; with
            the reason.
    """
    with _one_thread:  # threads that want it at once need only one
        return _library(package, file, flags)


def source_of(package: str, file: str = KERNEL) -> bytes:
    """The text of a kernel, with the headers of its room in place of the lines that include them, and ``processor.c``."""
    room = files(package)
    included: set[str] = set()

    def text_of(name: str) -> str:
        included.add(name)
        return re.sub(r'^#include "(.+)"$', header, room.joinpath(name).read_text(encoding="utf-8"), flags=re.MULTILINE)

    def header(line: re.Match[str]) -> str:
        return "" if line[1] in included else text_of(line[1])

    whole = text_of(file) + files("ssl_dc.native").joinpath("processor.c").read_text(encoding="utf-8")
    return whole.encode()


@cache
def _library(package: str, file: str, flags: tuple[str, ...]) -> ctypes.CDLL:
    if os.environ.get(NO_KERNEL):
        raise RunError(f"the kernel is switched off by {NO_KERNEL}")
    if sys.platform == "win32":
        raise RunError("the kernel needs POSIX threads, which Windows does not have")
    compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        raise RunError("no C compiler was found (cc, gcc, clang, or the one that CC names)")
    source, flags = source_of(package, file), (*FLAGS, *flags)
    name = f"{Path(file).stem}-{_fingerprint(source, compiler, flags)}.so"
    library = None
    try:
        with cache_folder() as folder:
            kept = read_library(folder, name)
            if kept is not None:
                library = _loaded_if_it_runs_here(kept)
            if library is None:
                content, library = _compile_and_load(compiler, source, flags)
                keep_library(folder, name, content)
    except CacheError as error:
        told = f"the compiled kernel is not kept, so each process compiles it anew, which takes seconds: {error}"
        warnings.warn(told, SlowerWarning, stacklevel=3)
    return _compile_and_load(compiler, source, flags)[1] if library is None else library


def _loaded_if_it_runs_here(content: bytes) -> ctypes.CDLL | None:
    """A kernel, loaded; None if this processor does not have the instructions for which it was compiled."""
    library = load_library(content)
    return library if library.ssl_dc_runs_here() else None


def _compile_and_load(compiler: str, source: bytes, flags: tuple[str, ...]) -> tuple[bytes, ctypes.CDLL]:
    """The content of the shared library, and the library.

    Raises:
        RunError: If it cannot be compiled or loaded, or does not run on this processor; with the reason.
    """
    content = _compile(compiler, source, flags)
    library = _loaded_if_it_runs_here(content)
    if library is None:
        raise RunError(f"the C compiler {compiler!r} gave the kernel instructions that this processor does not have")
    return content, library


def _compile(compiler: str, source: bytes, flags: tuple[str, ...] = FLAGS) -> bytes:
    """The content of the shared library, compiled in a folder of this process's own.

    Raises:
        RunError: If there is no such folder, or the compiler fails; with the reason.
    """
    try:
        with tempfile.TemporaryDirectory() as folder:
            code, library = Path(folder, "kernel.c"), Path(folder, "kernel.so")
            code.write_bytes(source)
            command = [*shlex.split(compiler), *flags, str(code), "-o", str(library)]
            done = subprocess.run(command, capture_output=True, text=True, timeout=COMPILE_SECONDS, check=False)  # noqa: S603  # the user's compiler
            if done.returncode:
                lines = done.stderr.strip().splitlines() or ["no message"]
                raise RunError(f"the C compiler {compiler!r} refused the kernel: {lines[0]}")
            return library.read_bytes()
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        raise RunError(f"the kernel cannot be compiled by {compiler!r}: {error}") from error


def _fingerprint(source: bytes, compiler: str, flags: tuple[str, ...] = FLAGS) -> str:
    """Names a compiled kernel by what it depends on: source, compiler, flags and processor."""
    digest = hashlib.sha256(source)
    digest.update("\n".join((compiler, *flags, platform.machine(), _processor(compiler))).encode())
    return digest.hexdigest()[:16]


def _processor(compiler: str) -> str:
    """A text that differs between processors for which the compiler makes different code."""
    try:
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
    except OSError:
        lines = []
    known = {line for line in lines if line.partition(":")[0].strip().lower() in PROCESSOR_FIELDS}
    return "\n".join(sorted(known)) if known else _macros(compiler)


def _macros(compiler: str) -> str:
    """What the compiler predefines for this processor; empty if it does not say."""
    command = [*shlex.split(compiler), *FLAGS, "-dM", "-E", "-x", "c", os.devnull]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=COMPILE_SECONDS, check=False).stdout  # noqa: S603  # the user's compiler
    except (OSError, subprocess.TimeoutExpired):
        return ""
