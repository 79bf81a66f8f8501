"""Times of several ways to do one thing, taken in turns so that what the machine does besides falls on all alike."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

Way = Callable[[int], Any]
"""Does the thing once; given the number of the round, so that it may take another image each time."""

WARM_UP = 3
"""Rounds before the clock is read: code that compiles, allocates or fills caches does so then."""


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
        milliseconds: For each way its rounds, in their order.
    """

    milliseconds: Mapping[str, list[float]]

    def timing(self, way: str) -> Timing:
        """Median, p10 and p90 of a way."""
        p10, median, p90 = np.percentile(self.milliseconds[way], (10, 50, 90))
        return Timing(float(median), float(p10), float(p90))

    def ratio(self, slow: str, fast: str) -> float:
        """How many times faster one way is than another: the median over rounds of their ratio in the same round."""
        rounds = np.array(self.milliseconds[slow]) / np.array(self.milliseconds[fast])
        return float(np.median(rounds))


def in_turns(ways: Mapping[str, Way], *, seconds: float, least_rounds: int = 10) -> Times:
    """Time each way once a round, rounds following each other until the time is up.

    The garbage collector rests meanwhile.

    Args:
        ways: What is timed.
        seconds: How long to go on.
        least_rounds: Go on longer if there were fewer.
    """
    milliseconds: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(WARM_UP):
        for way in ways.values():
            way(number)
    collecting = gc.isenabled()
    gc.disable()
    try:
        end = time.perf_counter() + seconds
        number = 0
        while number < least_rounds or time.perf_counter() < end:
            for name, way in ways.items():
                since = time.perf_counter()
                way(number)
                milliseconds[name].append(1000 * (time.perf_counter() - since))
            number += 1
    finally:
        if collecting:
            gc.enable()
    return Times(milliseconds)
