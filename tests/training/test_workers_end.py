"""Whatever ends a run, all its processes end with it, and say why without a traceback.

The cells are those of ``benchmarks/early_ends.py``; all of them with ``-m slow``.
"""

from __future__ import annotations

import sys

import pytest

from helpers.benchmarks import benchmark

ENDS = benchmark("early_ends")
CELLS = {
    f"{way.name}, {workers} workers, {processes} processes": (way, workers, processes)
    for way in ENDS.WAYS
    for processes in way.processes
    for workers in way.workers
}
QUICK = [
    "an image that cannot be read, 1 workers, 1 processes",
    "a view that raises, 2 workers, 1 processes",
    "SIGTERM before the first step, 0 workers, 1 processes",
    "a worker is killed (-9), 1 workers, 1 processes",
    "the launcher is killed (-9), 1 workers, 2 processes",
]


def tried(name: str) -> tuple[bool, str]:
    if name.startswith("the disk is full") and not ENDS.can_mount():
        pytest.skip("this machine does not let a test mount a small disk")
    right, shown = ENDS.tried(*CELLS[name])
    return right, f"{name}: {shown}"


@pytest.mark.long
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks at processes by /proc")
@pytest.mark.parametrize("name", QUICK)
def test_a_run_that_ends_early_leaves_nothing_behind(name: str) -> None:
    right, shown = tried(name)
    assert right, shown


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", CELLS)
def test_every_way_of_ending_early_leaves_nothing_behind(name: str) -> None:
    right, shown = tried(name)
    assert right, shown


def test_there_are_many_cells() -> None:
    assert len(CELLS) >= 60
