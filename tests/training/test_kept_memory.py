"""A training on the CPU asks the system for its memory once, and gives it back at the end."""

from __future__ import annotations

import ctypes
import resource
from pathlib import Path

import pytest
import torch

import ssl_dc
from helpers.settings import TINY
from ssl_dc.training.kept_memory import kept_memory

CPU = torch.device("cpu")
MIB = 2**20
SIZE = 96 * MIB
PAGES = SIZE // resource.getpagesize()

gnu = pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "gnu_get_libc_version"), reason="not the GNU C library")


def pages_of_a_tensor() -> int:
    """Pages that the system had to give to this process for a tensor that is written and freed."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(SIZE, dtype=torch.uint8)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def resident() -> int:
    """Bytes of this process that are in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


@gnu
def test_memory_is_asked_for_each_time_outside_and_in_the_end_never_inside() -> None:
    outside = sum(pages_of_a_tensor() for _ in range(10))
    assert outside > 9 * PAGES / 2  # the system may give several pages at once
    with kept_memory(CPU):
        for _ in range(10):  # something small that is placed in between may leave gaps that are just too small
            pages_of_a_tensor()
        assert sum(pages_of_a_tensor() for _ in range(10)) < outside / 10
    assert sum(pages_of_a_tensor() for _ in range(10)) > 9 * PAGES / 2


@gnu
def test_memory_is_given_back_at_the_end() -> None:
    before = resident()
    with kept_memory(CPU):
        pages_of_a_tensor()
        assert resident() > before + SIZE / 2
    assert resident() < before + SIZE / 4


@gnu
def test_a_training_elsewhere_leaves_the_memory_of_the_processor_alone() -> None:
    with kept_memory(torch.device("meta")):
        pages_of_a_tensor()
        assert pages_of_a_tensor() > PAGES / 2


@gnu
def test_a_training_keeps_its_memory(tmp_path: Path) -> None:
    pages: list[int] = []

    class Counts(ssl_dc.Watcher):
        def on_step_end(self, step: int) -> None:  # noqa: ARG002
            pages.append(pages_of_a_tensor())

    ssl_dc.train(TINY, output=tmp_path / "run", watchers=[Counts()])
    assert len(pages) > 3
    assert pages[-1] < PAGES / 10
    assert pages_of_a_tensor() > PAGES / 2
