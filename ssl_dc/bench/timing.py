"""Times several ways to do one thing.

The ways take turns, so that other work of the machine slows all of them alike.
"""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

Way = Callable[[int], Any]
"""Does the thing once. It is given the number of the call, so that it can use another image each time."""

WARM_UP = 3
"""Calls before any that is timed. Code that compiles, allocates or fills caches does so then."""
PAUSE = 0.1
"""Seconds of rest before a way's turn. The threads of some runtimes (onnxruntime by default) spin for tens of
milliseconds after a call. Without a rest they would take a core from the threads of the next way."""
CALLS = 3
"""Timed calls in a turn. An untimed call precedes them: it wakes the processor and fills its caches."""


MIN_ROUNDS = 10
"""Rounds that are timed however long they take."""


@dataclass(frozen=True)
class Timing:
    """The time of one way, in milliseconds.

    Attributes:
        median: Half of the calls took longer.
        p10: A tenth of the calls took less.
        p90: A tenth of the calls took longer.
    """

    median: float
    p10: float
    p90: float


@dataclass(frozen=True)
class Times:
    """The times of all ways.

    Attributes:
        milliseconds: For each way the times of its calls, in order. Calls of the same place used the same image.
    """

    milliseconds: Mapping[str, list[float]]

    def timing(self, way: str) -> Timing:
        """Median, p10 and p90 of a way."""
        p10, median, p90 = np.percentile(self.milliseconds[way], (10, 50, 90))
        return Timing(float(median), float(p10), float(p90))

    def ratio(self, slow: str, fast: str) -> float:
        """How many times faster ``fast`` is than ``slow``: the median of the ratios of calls in the same place."""
        return float(np.median(np.array(self.milliseconds[slow]) / np.array(self.milliseconds[fast])))


def seconds_of(ways: int, seconds: float) -> float:
    """How long :func:`in_turns` takes at least: the time asked for, or the pauses of the rounds that it does anyway."""
    return max(seconds, MIN_ROUNDS * ways * PAUSE)


def in_turns(ways: Mapping[str, Way], *, seconds: float, min_rounds: int = MIN_ROUNDS) -> Times:
    """Time a few calls of each way in every round, for as many rounds as fit into the time.

    The garbage collector is off meanwhile.

    Args:
        ways: The ways by name.
        seconds: How long to measure.
        min_rounds: Rounds that are measured even if they take longer.

    Raises:
        ValueError: If ``seconds`` is not a finite number.
    """
    if not math.isfinite(seconds):
        raise ValueError(f"seconds must be finite, not {seconds}")
    milliseconds: dict[str, list[float]] = {name: [] for name in ways}
    for way in ways.values():
        for number in range(WARM_UP):
            way(number)
    collecting = gc.isenabled()
    gc.disable()
    try:
        end = time.perf_counter() + seconds
        done = 0
        while done < min_rounds or time.perf_counter() < end:
            for name, way in ways.items():
                milliseconds[name] += _turn(way, done * CALLS)
            done += 1
    finally:
        if collecting:
            gc.enable()
    return Times(milliseconds)


def _turn(way: Way, number: int) -> list[float]:
    """Milliseconds of the calls of a way in one round, from a number on. The untimed call has the number after theirs."""
    time.sleep(PAUSE)
    way(number + CALLS)
    times = []
    for call in range(number, number + CALLS):
        since = time.perf_counter()
        way(call)
        times.append(1000 * (time.perf_counter() - since))
    return times
