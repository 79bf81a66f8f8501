"""The kernel of this machine that runs plans."""

from __future__ import annotations

from ssl_dc.compiled.kernel_interface import Kernel
from ssl_dc.native.library import kernel_library


def kernel() -> Kernel:
    """kernel.c, compiled and loaded.

    Raises:
        RunError: If there is none; with the reason, see :func:`kernel_library`.
    """
    return Kernel(kernel_library("ssl_dc.compiled"))
