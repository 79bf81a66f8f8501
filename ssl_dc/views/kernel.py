"""The kernel of this machine that draws views: kernel.c, compiled when it is first wanted."""

from __future__ import annotations

import ctypes
import warnings
from ctypes import c_int, c_int32, c_int64, c_void_p
from functools import cache
from multiprocessing import parent_process

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ssl_dc.errors import RunError, SlowerWarning
from ssl_dc.native.library import kernel_library

REACH = 12
"""Pixels from the middle of the widest Gaussian at which it is nothing in float32."""
CHANGES = 4
"""Kinds of change of colour: brightness, contrast, saturation, hue, in this order."""
NO_CHANGE = -1
DRAW = np.dtype(
    [
        ("part", np.int32, 4),  # top, left, height, width
        ("flip", np.int32),
        ("grey", np.int32),
        ("blur", np.int32),
        ("solarize", np.int32),
        ("order", np.int32, CHANGES),  # the first change of colour first; NO_CHANGE ends them
        ("amount", np.float32, CHANGES),  # of each kind of change
        ("gaussian", np.float32, REACH + 1),  # weights of the blur by distance in pixels, up to a factor
    ]
)
"""How to draw the view of one image."""

Draws = npt.NDArray[np.void]
_NO_MEMORY, _OUTSIDE = 1, 2


@cache
def kernel() -> Kernel | None:
    """The kernel; None if this machine has none.

    Warns:
        SlowerWarning: If there is none; with the reason. Processes that prepare images do not repeat it.
    """
    try:
        return Kernel(kernel_library("ssl_dc.views"))
    except RunError as error:
        if parent_process() is None:
            told = f"torch draws the views, which takes several times as long as the compiled kernel: {error}"
            warnings.warn(told, SlowerWarning, stacklevel=2)
        return None


class Kernel:
    """The functions of the loaded library.

    Args:
        library: kernel.c, compiled and loaded.

    Raises:
        RunError: If the library was compiled from another version of kernel.c.
    """

    def __init__(self, library: ctypes.CDLL) -> None:
        self._draw_views = library.ssl_dc_draw_views
        self._draw_views.argtypes = [
            *(c_void_p, c_int64, c_int32, c_int32),  # images, n, height, width
            *(c_void_p, c_void_p, c_void_p, c_int32),  # draws, scale, shift, size
            *(c_void_p, c_int),  # views, threads
        ]
        self._crop = library.ssl_dc_crop
        self._crop.argtypes = [c_void_p, c_int32, c_int32, c_void_p, c_int32, c_void_p]
        if library.ssl_dc_size_of_draw() != DRAW.itemsize or library.ssl_dc_reach() != REACH:
            raise RunError("the compiled kernel has another layout of draws than this ssl-dc")

    def views(self, images: Tensor, draws: Draws, size: int, scale: Tensor, shift: Tensor) -> Tensor:
        """Views of images, by as many threads as torch uses.

        Args:
            images: (N, 3, H, W) uint8 on the CPU.
            draws: (N,) of :data:`DRAW`.
            size: Side S of a view, in pixels.
            scale: (3,) float32. A value in [0, 255] becomes value * scale + shift.
            shift: (3,) float32.

        Returns:
            (N, 3, S, S) float32, channels last.
        """
        pixels = images.permute(0, 2, 3, 1).contiguous()
        views = torch.empty((len(pixels), size, size, 3))
        _check(
            self._draw_views(
                *(pixels.data_ptr(), *pixels.shape[:3]),
                *(draws.ctypes.data, scale.data_ptr(), shift.data_ptr(), size),
                *(views.data_ptr(), torch.get_num_threads()),
            )
        )
        return views.permute(0, 3, 1, 2)

    def crop(self, pixels: npt.NDArray[np.uint8], draw: Draws, size: int) -> npt.NDArray[np.uint8]:
        """The part of an image, resized: uint8 (S, S, 3).

        Args:
            pixels: (H, W, 3).
            draw: (1,) of :data:`DRAW`. Only the part and the flip are used.
            size: Side S, in pixels.
        """
        pixels = np.ascontiguousarray(pixels)
        part = np.empty((size, size, 3), np.uint8)
        _check(self._crop(pixels.ctypes.data, *pixels.shape[:2], draw.ctypes.data, size, part.ctypes.data))
        return part


def _check(outcome: int) -> None:
    if outcome == _NO_MEMORY:
        raise MemoryError("the kernel that draws views found no memory")
    if outcome == _OUTSIDE:
        raise ValueError("a part does not lie inside its image")
