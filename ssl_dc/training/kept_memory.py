"""Memory that a training on the CPU keeps from step to step."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import torch

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_MMAP_MAX = -1, -3, -4
"""Parameters of ``mallopt``, as malloc.h of the GNU C library numbers them."""

_EVERY_BLOCK = -1
"""A threshold above all sizes: nothing is given back."""

_LARGEST_OF_HEAP = 32 * 2**20
"""The library's own threshold between blocks of the heap and blocks of their own grows up to this, in bytes."""

_MOST_BLOCKS_OF_THEIR_OWN = 65_536
"""How many blocks of their own the library allows by itself."""


@contextmanager
def kept_memory(device: torch.device) -> Iterator[None]:
    """Keep freed memory in this process inside the block, and give it back at its end, if a training computes on the CPU.

    The GNU C library takes a large tensor's memory from the system and gives it back as soon as the tensor is gone. So
    every step asks for the memory of the last one again, and the system first writes zeros into each page. A training
    frees what it takes in each step, so it needs no more memory this way. Other C libraries and allocators are left as they
    are, as is a process that computes elsewhere.

    This works for a training in the main thread, which takes memory from the main heap. Another thread has a heap of its
    own that cannot hold a tensor above 64 MiB, so its large tensors still come from the system. The main thread is moved to
    such a heap if the library once could not give it memory.

    Args:
        device: Where the training computes.
    """
    library = _gnu_library() if device.type == "cpu" else None
    if library is None:
        yield
        return
    library.mallopt(_M_MMAP_MAX, 0)
    library.mallopt(_M_TRIM_THRESHOLD, _EVERY_BLOCK)
    try:
        yield
    finally:
        library.mallopt(_M_MMAP_MAX, _MOST_BLOCKS_OF_THEIR_OWN)
        library.mallopt(_M_MMAP_THRESHOLD, _LARGEST_OF_HEAP)
        library.mallopt(_M_TRIM_THRESHOLD, 2 * _LARGEST_OF_HEAP)
        library.malloc_trim(0)


@cache
def _gnu_library() -> ctypes.CDLL | None:
    """The C library of this process, if it is GNU's."""
    try:
        library = ctypes.CDLL(None)
        library.gnu_get_libc_version  # noqa: B018 - asked for by name: only GNU's has it
    except (AttributeError, OSError, TypeError):  # TypeError: Windows has no library of the process
        return None
    return library
