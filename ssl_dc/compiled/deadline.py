"""A budget that follows a deadline: each call takes about as long as it may, whatever else the machine does."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from torch import Tensor

from ssl_dc.compiled.executor import Executed, Executor

MISSED = 0.1
"""Share of the calls that may take longer than the deadline: the deadline is held at the 90th percentile."""
STEP = 0.2
"""How far the logarithm of the budget moves when every call is late. Smaller steps follow a change of load more slowly."""


class Deadline:
    """Calls an executor, and moves its budget between calls so that nine calls of ten are in time.

    After a call that was late the budget falls by a factor of exp(-0.18), after one that was in time it rises by one of
    exp(0.02). These balance when a tenth of the calls is late (the stochastic approximation of a quantile, Robbins and
    Monro 1951). The budget stays between the least and the largest one, so a deadline that even the least misses is missed.

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
        self._ends = (math.log(least), math.log(largest))
        self._place = self._ends[0]

    @property
    def budget(self) -> float:
        """The budget of the next call."""
        return min(1.0, math.exp(self._place))

    def __call__(self, images: Tensor) -> Executed:
        """Features and masks of images (N, 3, H, W); see :meth:`ssl_dc.compiled.executor.Executor.__call__`."""
        start = self._clock()
        result = self._executor(images, self.budget)
        late = self._clock() - start > self._seconds
        low, high = self._ends
        self._place = min(high, max(low, self._place + STEP * (MISSED - late)))
        return result
