"""The kernels of this machine that run plans."""

from __future__ import annotations

from ssl_dc.compiled.kernel_interface import Kernel, dot_product
from ssl_dc.native.library import kernel_library

ROOM = "ssl_dc.compiled"
INT8 = "kernel_int8.c"
BF16 = "kernel_bf16.c"
NO_INSTRUCTIONS = "float32"
"""How kernel_bf16.c multiplies where the processor has no instructions for bf16 (bf16_numbers.h)."""
INT8_FLAGS = ("-ffp-contract=off",)
"""Each operation on floats is rounded by itself, so that every processor gives the same codes."""
ANY_WEIGHT = "-DSSL_DC_ANY_WEIGHT"
"""Compiles a kernel that is exact for every weight of 8 bits, also where the fastest one is not (int8_dot.h)."""


def kernel() -> Kernel:
    """kernel.c, compiled and loaded: it computes in float32.

    Raises:
        RunError: If there is none; with the reason, see :func:`kernel_library`.
    """
    return Kernel(kernel_library(ROOM))


def bf16_kernel() -> Kernel:
    """kernel_bf16.c, compiled and loaded.

    Raises:
        RunError: If there is none; with the reason, see :func:`kernel_library`.
    """
    return Kernel(kernel_library(ROOM, BF16))


def multiplies_bf16() -> bool:
    """Whether this processor has instructions that multiply numbers in bf16. Without, the kernel makes floats of them.

    Raises:
        RunError: If there is no kernel; with the reason, see :func:`kernel_library`.
    """
    return dot_product(kernel_library(ROOM, BF16)) != NO_INSTRUCTIONS


def int8_kernel(largest: int) -> Kernel:
    """kernel_int8.c, compiled and loaded.

    Args:
        largest: The largest magnitude of a weight. For more than :func:`largest_weight` the kernel is compiled in another
            way, and is slower.

    Raises:
        RunError: If there is none; with the reason, see :func:`kernel_library`.
    """
    library = kernel_library(ROOM, INT8, *INT8_FLAGS)
    if largest > library.ssl_dc_largest_weight():
        library = kernel_library(ROOM, INT8, *INT8_FLAGS, ANY_WEIGHT)
    return Kernel(library)


def largest_weight() -> int:
    """The largest magnitude of a weight that the fastest int8 kernel of this machine multiplies exactly.

    Raises:
        RunError: If there is no kernel; with the reason, see :func:`kernel_library`.
    """
    largest: int = kernel_library(ROOM, INT8, *INT8_FLAGS).ssl_dc_largest_weight()
    return largest
