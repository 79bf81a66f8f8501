"""The kernels of this room, compiled with flags of a test's own."""

from __future__ import annotations

import ctypes

from ssl_dc.compiled.kernel import INT8, INT8_FLAGS, ROOM
from ssl_dc.native import library as native_library
from ssl_dc.native.library_cache import load_library


def flags_of(file: str) -> tuple[str, ...]:
    """The flags with which a kernel is compiled: ``kernel.c``, ``kernel_bf16.c`` or ``kernel_int8.c``."""
    return (*native_library.FLAGS, *(INT8_FLAGS if file == INT8 else ()))


def library_with(file: str, *flags: str, compiler: str = "cc") -> ctypes.CDLL:
    """A kernel, compiled with more flags after its own, and loaded."""
    source = native_library.source_of(ROOM, file)
    return load_library(native_library._compile(compiler, source, (*flags_of(file), *flags)))
