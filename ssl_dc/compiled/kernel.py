"""The kernels of this machine that run plans."""

from __future__ import annotations

from ssl_dc.compiled.kernel_interface import Kernel
from ssl_dc.native.library import kernel_library

ROOM = "ssl_dc.compiled"
INT8 = "kernel_int8.c"
INT8_FLAGS = ("-ffp-contract=off",)
"""Each operation on floats is rounded by itself, so that every processor gives the same codes."""


def kernel() -> Kernel:
    """kernel.c, compiled and loaded: it computes in float32.

    Raises:
        RunError: If there is none; with the reason, see :func:`kernel_library`.
    """
    return Kernel(kernel_library(ROOM))


def int8_kernel() -> Kernel:
    """kernel_int8.c, compiled and loaded.

    Raises:
        RunError: If there is none; with the reason, see :func:`kernel_library`.
    """
    return Kernel(kernel_library(ROOM, INT8, *INT8_FLAGS))
