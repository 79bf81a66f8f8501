"""A budget that follows a deadline: each call takes about as long as it may, whatever else the machine does."""

from __future__ import annotations

import math
import time
from bisect import bisect_right
from collections.abc import Callable

import numpy as np
from torch import Tensor

from ssl_dc.compiled.executor import Executed, Executor

MISSED = 0.1
"""Share of the calls that may take longer than the deadline: the deadline is held at the 90th percentile."""
STEP = 0.2
"""How far the logarithm of the budget moves when every call is late. Smaller steps follow a change of load more slowly."""
REMEMBERED = 20
"""How many late calls at the least budget are remembered at most, to be made up for by 180 calls in time."""
PLACES = 64
"""Budgets to choose from. From 0.1 to 0.9 they are 3.5 % apart."""


class Deadline:
    """Calls an executor, and moves its budget between calls so that nine calls of ten are in time.

    The rule steers the 90th percentile of the time of a call, not its mean. After a late call the budget falls by a factor
    of exp(-0.18). After a call in time it rises by a factor of exp(0.02). The two balance when a tenth of the calls is
    late, whatever makes them late (the stochastic approximation of a quantile, Robbins and Monro 1951). The time of a call
    is all that the caller waits for. A call uses one of 64 budgets, evenly spaced by their ratio: the largest that is not
    above the budget of the rule. All 64 are prepared at the beginning, so that no call has to lay out thresholds.

    It starts at the least budget. From 0.1 to 0.9 it takes 110 calls in time, and back 12 late calls. The budget stays
    between the least and the largest one. Late calls at the least budget are remembered, up to 20: each is made up for by
    nine calls in time before the budget rises. So short bursts of load do not add up to more than a tenth of late calls.
    If the least budget is late in more than a tenth of the calls for long, the deadline is missed. If the largest one is
    late in fewer, time is left over.

    Args:
        executor: A compiled gated route.
        milliseconds: How long a call may take, above 0.
        least: The smallest budget to use, in (0, 1].
        largest: The largest one, at least as large. Take both from those that the network was trained for.
        clock: Gives the time in seconds.

    Attributes:
        budget: The budget of the next call.

    Raises:
        ValueError: If the milliseconds or the budgets are not such.
    """

    def __init__(
        self,
        executor: Executor,
        milliseconds: float,
        *,
        least: float,
        largest: float,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        if not (math.isfinite(milliseconds) and milliseconds > 0):
            raise ValueError(f"a deadline is a number of milliseconds above 0, not {milliseconds}")
        if not 0 < least <= largest <= 1:
            raise ValueError(f"budgets are above 0 and at most 1, the least first, not {least} and {largest}")
        self._executor, self._seconds, self._clock = executor, milliseconds / 1000, clock
        self._budgets: list[float] = np.geomspace(least, largest, PLACES).tolist()
        self._places = [math.log(budget) for budget in self._budgets]
        self._place = self._places[0]
        executor.prepare(self._budgets)

    @property
    def budget(self) -> float:
        """The budget of the next call."""
        return self._budgets[max(0, bisect_right(self._places, self._place) - 1)]

    def __call__(self, images: Tensor) -> Executed:
        """Features and masks of images (N, 3, H, W); see :meth:`ssl_dc.compiled.executor.Executor.__call__`."""
        start = self._clock()
        result = self._executor(images, self.budget)
        late = self._clock() - start > self._seconds
        lowest, highest = self._places[0] - REMEMBERED * STEP * (1 - MISSED), self._places[-1]
        self._place = min(highest, max(lowest, self._place + STEP * (MISSED - late)))
        return result
