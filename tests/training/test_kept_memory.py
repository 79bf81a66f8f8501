"""A training on the CPU asks the system for its memory once, and gives it back at the end.

Each test counts in a process of its own. Where an allocation once failed, the GNU C library serves the main thread from
another heap, which cannot hold a large tensor (see :mod:`ssl_dc.training.kept_memory`).
"""

from __future__ import annotations

import ctypes
import multiprocessing
import resource
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TypeVar

import pytest
import torch

import ssl_dc
from helpers.settings import TINY
from ssl_dc.training.kept_memory import kept_memory

Counted = TypeVar("Counted")

CPU = torch.device("cpu")
MIB = 2**20
SIZE = 96 * MIB
PAGES = SIZE // resource.getpagesize()
LARGER = 4
"""A tensor this many times as large fits no gap that the others left."""

gnu = pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "gnu_get_libc_version"), reason="not the GNU C library")


def in_a_process_of_its_own(count: Callable[..., Counted], *given: Path) -> Counted:
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(count, *given).result()


def pages_of_tensors(count: int = 1, size: int = SIZE) -> int:
    """Pages that the system had to give to this process for tensors that are written and freed, one after another."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(count):
        torch.ones(size, dtype=torch.uint8)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def resident() -> int:
    """Bytes of this process that are in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def pages_before_inside_and_after() -> tuple[int, int, int, int]:
    before = pages_of_tensors(10)
    with kept_memory(CPU):
        pages_of_tensors(10)  # something small that is placed in between may leave gaps that are just too small
        inside = pages_of_tensors(10)
    return before, inside, pages_of_tensors(10), pages_of_tensors(10, LARGER * SIZE)


def resident_before_inside_and_after() -> tuple[int, int, int]:
    before = resident()
    with kept_memory(CPU):
        pages_of_tensors()
        inside = resident()
    return before, inside, resident()


def pages_elsewhere() -> int:
    with kept_memory(torch.device("meta")):
        pages_of_tensors()
        return pages_of_tensors()


def pages_in_the_last_step_and_after(folder: Path) -> tuple[int, int]:
    pages: list[int] = []

    class Counts(ssl_dc.Watcher):
        def on_step_end(self, step: int) -> None:  # noqa: ARG002
            pages.append(pages_of_tensors())

    ssl_dc.train(TINY, output=folder / "run", watchers=[Counts()])
    assert len(pages) > 3
    return pages[-1], pages_of_tensors()


@pytest.mark.long
@gnu
def test_memory_is_asked_for_each_time_outside_never_inside_and_anew_in_the_end() -> None:
    before, inside, after, after_larger = in_a_process_of_its_own(pages_before_inside_and_after)
    assert before > 9 * PAGES / 2  # the system may give several pages at once
    assert inside < before / 10
    assert after > PAGES / 2  # not each time: a gap in the heap that is large enough is taken first
    assert after_larger > LARGER * 9 * PAGES / 2


@pytest.mark.long
@gnu
def test_memory_is_given_back_at_the_end() -> None:
    before, inside, after = in_a_process_of_its_own(resident_before_inside_and_after)
    assert inside > before + SIZE / 2
    assert after < before + SIZE / 4


@pytest.mark.long
@gnu
def test_a_training_elsewhere_leaves_the_memory_of_the_processor_alone() -> None:
    assert in_a_process_of_its_own(pages_elsewhere) > PAGES / 2


@pytest.mark.long
@gnu
def test_a_training_keeps_its_memory(tmp_path: Path) -> None:
    last, after = in_a_process_of_its_own(pages_in_the_last_step_and_after, tmp_path)
    assert last < PAGES / 10
    assert after > PAGES / 2
