"""The largest budget that holds a deadline on this machine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor

from ssl_dc.bench.timing import Timing, in_turns
from ssl_dc.compiled.torch_threads import torch_threads
from ssl_dc.errors import ConfigError
from ssl_dc.evaluation.report import Report, ReportTable
from ssl_dc.model import Model

HALVINGS = 5
"""Steps of the search between the smallest and the largest budget: a range of 0.8 leaves 0.025."""


@dataclass(frozen=True)
class AtMost(Report):
    """Which budget holds a deadline.

    Attributes:
        milliseconds: The deadline, for the 90th percentile of calls with a single image.
        threads: CPU threads.
        budget: The largest budget that was measured and holds it; None if none does.
        measured: The times by budget, ascending.
        dense: The times of the dense route in the executor.
    """

    milliseconds: float
    threads: int
    budget: float | None
    measured: dict[float, Timing]
    dense: Timing

    def as_json(self) -> dict[str, Any]:
        """The result as plain values."""
        return {
            "at_most_milliseconds": self.milliseconds,
            "threads": self.threads,
            "budget": self.budget,
            "dense_holds": self.dense.p90 <= self.milliseconds,
            "measured": [{"budget": budget, **asdict(timing)} for budget, timing in self.measured.items()],
            "dense": asdict(self.dense),
        }

    def tables(self) -> Sequence[ReportTable]:
        """A row for each budget that was measured, and what to use."""
        rows = [self._row(f"{budget:.3f}", timing) for budget, timing in self.measured.items()]
        return [
            ReportTable(
                f"single images in at most {self.milliseconds:g} ms, threads: {self.threads}",
                ("budget", "median", "p10", "p90", "holds"),
                [*rows, self._row("dense", self.dense)],
                note=self._verdict(),
            )
        ]

    def _row(self, name: str, timing: Timing) -> tuple[str, ...]:
        times = (f"{value:.3f}" for value in (timing.median, timing.p10, timing.p90))
        return (name, *times, "yes" if timing.p90 <= self.milliseconds else "no")

    def _verdict(self) -> str:
        if self.dense.p90 <= self.milliseconds:
            return "The dense route holds it as well: use the dense route."
        if self.budget is None:
            return f"No budget holds it: even {min(self.measured):g} takes longer. A smaller network or image may."
        return f"The largest budget that holds it is {self.budget:.3f}: model.at_budget({self.budget:.3f})."


def at_most(model: Model, images: Tensor, milliseconds: float, *, threads: int, seconds: float) -> AtMost:
    """Find the largest budget at which nine calls of ten with a single image take at most so long.

    Args:
        model: On the CPU, trained for several budgets. The search goes from the smallest to the largest of them.
        images: (n, 3, H, W), at least one.
        milliseconds: The deadline, above 0.
        threads: CPU threads.
        seconds: How long all measurements take together, about.

    Raises:
        ConfigError: If the model was not trained for several budgets.
    """
    budgets = model.config.budget.budgets
    if not model.has_gates or len(budgets) < 2:
        raise ConfigError("--at-most chooses among the budgets that a run was trained for; train with --budget 0.1:0.9")
    singles = images.split(1)
    share = seconds / (HALVINGS + 2)
    measured: dict[float, Timing] = {}
    with torch_threads(threads):
        gated, dense = model.compile_gated(threads=threads), model.compile_dense(threads=threads)

        def holds(budget: float) -> bool:
            times = in_turns({"gated": lambda number: gated(singles[number % len(singles)], budget)}, seconds=share)
            measured[budget] = times.timing("gated")
            return measured[budget].p90 <= milliseconds

        timing = in_turns({"dense": lambda number: dense(singles[number % len(singles)])}, seconds=share).timing("dense")
        found = largest_that_holds(holds, budgets[0], budgets[-1])
    return AtMost(milliseconds, threads, found, dict(sorted(measured.items())), timing)


def largest_that_holds(holds: Callable[[float], bool], low: float, high: float) -> float | None:
    """The largest budget that holds, by bisection to within (high - low) / 2**HALVINGS; None if even ``low`` does not."""
    if not holds(low):
        return None
    if holds(high):
        return high
    for _ in range(HALVINGS):
        middle = round((low + high) / 2, 4)
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low
