"""Times of several ways to do one thing, taken in turns so that what the machine does besides falls on all alike."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

Way = Callable[[int], Any]
"""Does the thing once; given the number of the call, so that it may take another image each time."""

WARM_UP = 3
"""Calls before the clock is read at all: code that compiles, allocates or fills caches does so then."""
PAUSE = 0.1
"""Seconds of rest before a way's turn. Threads of some runtimes (onnxruntime's, unless told otherwise) go on spinning for
tens of milliseconds after a call, on a core that the next way's threads then wait for: each would pay for another."""
CALLS = 3
"""Calls in a turn that are timed, after one that is not: that one finds the machine asleep, others' data in its caches."""


@dataclass(frozen=True)
class Timing:
    """The times of one way, in milliseconds.

    Attributes:
        median: Half of the rounds took longer.
        p10: A tenth took less.
        p90: A tenth took longer.
    """

    median: float
    p10: float
    p90: float


@dataclass(frozen=True)
class Times:
    """The times of all ways.

    Attributes:
        milliseconds: For each way its calls, in their order: each call of a way took the same image as that of another.
    """

    milliseconds: Mapping[str, list[float]]

    def timing(self, way: str) -> Timing:
        """Median, p10 and p90 of a way."""
        p10, median, p90 = np.percentile(self.milliseconds[way], (10, 50, 90))
        return Timing(float(median), float(p10), float(p90))

    def ratio(self, slow: str, fast: str) -> float:
        """How many times faster one way is than another: the median over calls of their ratio in the same round."""
        return float(np.median(np.array(self.milliseconds[slow]) / np.array(self.milliseconds[fast])))


def in_turns(ways: Mapping[str, Way], *, seconds: float, least_rounds: int = 10) -> Times:
    """Time each way a few calls a round, rounds following each other until the time is up.

    The garbage collector rests meanwhile.

    Args:
        ways: What is timed.
        seconds: How long to go on.
        least_rounds: Go on longer if there were fewer.
    """
    milliseconds: dict[str, list[float]] = {name: [] for name in ways}
    for way in ways.values():
        for number in range(WARM_UP):
            way(number)
    collecting = gc.isenabled()
    gc.disable()
    try:
        end = time.perf_counter() + seconds
        done = 0
        while done < least_rounds or time.perf_counter() < end:
            for name, way in ways.items():
                milliseconds[name] += _turn(way, done * (CALLS + 1))
            done += 1
    finally:
        if collecting:
            gc.enable()
    return Times(milliseconds)


def _turn(way: Way, number: int) -> list[float]:
    """Milliseconds of a way's calls in one round, the first of which has that number."""
    time.sleep(PAUSE)
    way(number)
    times = []
    for call in range(number + 1, number + 1 + CALLS):
        since = time.perf_counter()
        way(call)
        times.append(1000 * (time.perf_counter() - since))
    return times
