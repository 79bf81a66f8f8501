"""The memory and the disk of this machine."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import torch

from ssl_dc.data.parquet_files import memory_of_the_machine

LIBRARIES_BYTES = 450 * 2**20
"""Memory that Python with torch takes before anything is trained, where the system does not say."""


def memory_there() -> int:
    """Bytes of the GPU, or of the machine as far as this process may use it."""
    if torch.cuda.is_available():
        return int(torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory)
    return memory_of_the_machine()


def libraries() -> int:
    """Bytes of memory that this process has taken so far, Python and torch above all."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return max(LIBRARIES_BYTES, pages * os.sysconf("SC_PAGE_SIZE"))
    except (OSError, ValueError, IndexError):  # not Linux
        return LIBRARIES_BYTES


def disk_free(folder: Path) -> int:
    """Bytes that are free where a folder is, or is to be."""
    there = next((place for place in (folder.absolute(), *folder.absolute().parents) if place.exists()), Path("/"))
    return shutil.disk_usage(there).free
