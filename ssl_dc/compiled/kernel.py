"""The compiled kernel: made from kernel.c by the machine's own compiler when it is first wanted, then kept."""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shutil
import stat
import subprocess
import sys
import tempfile
from ctypes import POINTER, Structure, c_int, c_int32, c_int64, c_void_p
from functools import cache
from importlib.resources import files
from pathlib import Path

from ssl_dc.errors import RunError

NO_KERNEL = "SSL_DC_NO_KERNEL"
"""Environment variable: if set and not empty, nothing is compiled and torch runs every plan."""
FLAGS = ("-O3", "-march=native", "-std=gnu11", "-ffp-contract=fast", "-shared", "-fPIC", "-pthread")
"""No -ffast-math: what is not a number stays so."""
COMPILE_SECONDS = 120


class Tensor(Structure):
    """An activation in the arena; see kernel.c."""

    _fields_ = (
        ("offset", c_int64),
        ("height", c_int32),
        ("width", c_int32),
        ("channels", c_int32),
        ("stride", c_int32),
        ("line", c_int32),
        ("plane", c_int32),
    )


class Op(Structure):
    """An operation; see kernel.c."""

    _fields_ = (
        ("kind", c_int32),
        ("relu", c_int32),
        ("kernel_h", c_int32),
        ("kernel_w", c_int32),
        ("step", c_int32),
        ("pad_h", c_int32),
        ("pad_w", c_int32),
        ("in_site", c_int32),
        ("out_site", c_int32),
        ("branch_site", c_int32),
        ("unless", c_int32),
        ("has_residual", c_int32),
        ("site", c_int32),
        ("hidden", c_int32),
        ("x", Tensor),
        ("y", Tensor),
        ("residual", Tensor),
        ("weight", c_void_p),
        ("bias", c_void_p),
        ("weight2", c_void_p),
        ("bias2", c_void_p),
    )


class Site(Structure):
    """A gate site; see kernel.c."""

    _fields_ = (("channels", c_int32), ("first", c_int32))


class Program(Structure):
    """A plan at one image size; see kernel.c."""

    _fields_ = (
        ("ops", POINTER(Op)),
        ("sites", POINTER(Site)),
        ("n_ops", c_int32),
        ("n_sites", c_int32),
        ("n_masks", c_int32),
        ("features", c_int32),
        ("input", Tensor),
        ("output", c_int64),
    )


class State(Structure):
    """What one image is computed in; see kernel.c."""

    _fields_ = (
        ("sites", POINTER(Site)),
        ("arena", c_void_p),
        ("scratch", c_void_p),
        ("kept", c_void_p),
        ("count", c_void_p),
    )


class Kernel:
    """The loaded library.

    Args:
        path: The shared library.

    Attributes:
        vector: Floats in a vector: pixels and rows of weights are padded to whole ones.
        block: Outputs whose weights lie together, for convolutions that pick no outputs.
        parts: Lists of sums that a gate's mean is made of.
        max_threads: How many threads a call takes at most.
    """

    def __init__(self, path: Path) -> None:
        library = ctypes.CDLL(str(path))
        self.run_many = library.ssl_dc_run_many
        self.run_many.argtypes = [POINTER(Program), POINTER(State), c_void_p, c_int64, c_void_p, c_void_p, c_int]
        self.run_many.restype = None
        self.run_one = library.ssl_dc_run_one
        self.run_one.argtypes = [POINTER(Program), POINTER(State), c_void_p, c_int, c_int, c_void_p]
        self.take = library.ssl_dc_take
        self.take.argtypes = [POINTER(Program), POINTER(State), c_void_p, c_void_p]
        self.take.restype = None
        self.vector: int = library.ssl_dc_vector()
        self.block: int = library.ssl_dc_block()
        self.parts: int = library.ssl_dc_parts()
        self.max_threads: int = library.ssl_dc_max_threads()
        for name, struct in (("op", Op), ("program", Program), ("state", State)):
            if getattr(library, f"ssl_dc_size_of_{name}")() != ctypes.sizeof(struct):
                raise RunError(f"{path} was compiled with another layout of {name} than this ssl-dc has")


@cache
def kernel() -> Kernel:
    """The kernel of this machine, compiled if it is not there yet.

    Raises:
        RunError: If it is switched off, there is no C compiler, or it cannot compile or load it; with the reason.
    """
    if os.environ.get(NO_KERNEL):
        raise RunError(f"the kernel is switched off by {NO_KERNEL}")
    if sys.platform == "win32":
        raise RunError("the kernel needs POSIX threads, which Windows has not")
    compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        raise RunError("no C compiler was found (cc, gcc, clang, or what CC names)")
    source = files("ssl_dc.compiled").joinpath("kernel.c").read_bytes()
    path = _own_folder() / f"kernel-{_fingerprint(source, compiler)}.so"
    if path.exists():
        try:
            return Kernel(path)
        except (OSError, AttributeError):  # damaged: it is compiled again
            path.unlink(missing_ok=True)
    _compile(compiler, source, path)
    try:
        return Kernel(path)
    except OSError as error:
        raise RunError(f"the compiled kernel {path} cannot be loaded: {error}") from error


def _compile(compiler: str, source: bytes, path: Path) -> None:
    """Compile into a folder of this process's own, then rename: two processes may do it at once."""
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        code, library = Path(folder, "kernel.c"), Path(folder, "kernel.so")
        code.write_bytes(source)
        command = [*compiler.split(), *FLAGS, str(code), "-o", str(library)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=COMPILE_SECONDS, check=False)  # noqa: S603  # the user's compiler
        except (OSError, subprocess.TimeoutExpired) as error:
            raise RunError(f"the C compiler {compiler!r} failed: {error}") from error
        if done.returncode:
            lines = done.stderr.strip().splitlines() or ["no message"]
            raise RunError(f"the C compiler {compiler!r} refused the kernel: {lines[0]}")
        library.replace(path)


def _own_folder() -> Path:
    """Where compiled kernels are kept: a folder that only this user can write to, since what is in it is executed.

    Raises:
        RunError: If there is none.
    """
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(base, "ssl-dc")
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = folder.stat()
    except OSError as error:
        raise RunError(f"the compiled kernel cannot be kept in {folder}: {error.strerror or error}") from error
    if status.st_uid != os.getuid() or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise RunError(f"the compiled kernel is not kept in {folder}, since others can write there")
    return folder


def _fingerprint(source: bytes, compiler: str) -> str:
    """What a compiled kernel depends on: source, compiler, flags, processor."""
    processor = platform.machine() + platform.processor()
    info = Path("/proc/cpuinfo")
    if info.exists():
        processor += "".join(
            sorted({line for line in info.read_text().splitlines() if line.startswith(("flags", "model name"))})
        )
    digest = hashlib.sha256(source)
    digest.update("\n".join((compiler, *FLAGS, processor)).encode())
    return digest.hexdigest()[:16]
