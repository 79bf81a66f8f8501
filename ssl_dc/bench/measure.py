"""What the gates save, in time: dense by every runtime there is, gated as trained, gated by the executor."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ssl_dc.bench.runtimes import RUNTIMES, Run, Unavailable, made
from ssl_dc.bench.timing import Times, Timing, in_turns
from ssl_dc.model import Model

MASKED = "gated: masked"
EXECUTOR = "gated: executor"


@dataclass(frozen=True)
class Situation:
    """How a network is asked for features.

    Attributes:
        batch: Images at once.
        threads: CPU threads.
    """

    batch: int
    threads: int

    def __str__(self) -> str:
        return f"batch {self.batch}, {self.threads} thread{'' if self.threads == 1 else 's'}"


@dataclass(frozen=True)
class Measured:
    """The times of all ways in one situation.

    Attributes:
        situation: Which.
        times: Of each way, by name.
        cost_ratio: Mean share of the dense MACs that the images cost on the gated route; None without gates.
        unavailable: Runtimes that this machine does not have, with the reason.
    """

    situation: Situation
    times: Times
    cost_ratio: float | None
    unavailable: dict[str, str] = field(default_factory=dict)

    @property
    def fastest_dense(self) -> str:
        """The way that ran the dense route fastest, by its median."""
        dense = [way for way in self.times.milliseconds if way.startswith("dense")]
        return min(dense, key=lambda way: self.times.timing(way).median)

    def speed_up(self, way: str) -> float:
        """How many times faster than the fastest dense way, median over rounds."""
        return self.times.ratio(self.fastest_dense, way)

    @property
    def promise(self) -> float | None:
        """What the MACs promise: how many times fewer the gated route needs."""
        return None if self.cost_ratio is None else 1 / self.cost_ratio

    @property
    def kept(self) -> float | None:
        """The executor's speed-up as a share of what the MACs promise."""
        return None if self.promise is None else self.speed_up(EXECUTOR) / self.promise

    def timing(self, way: str) -> Timing:
        """Median, p10 and p90 of a way, in milliseconds a batch."""
        return self.times.timing(way)

    def as_json(self) -> dict[str, Any]:
        """The measurement as plain values."""
        return {
            "batch": self.situation.batch,
            "threads": self.situation.threads,
            "cost_ratio": self.cost_ratio,
            "promised_speed_up": self.promise,
            "fastest_dense": self.fastest_dense,
            "kept_share_of_promise": self.kept,
            "ways": {
                way: {**vars(self.timing(way)), "speed_up": self.speed_up(way), "calls": len(calls)}
                for way, calls in self.times.milliseconds.items()
            },
            "unavailable": self.unavailable,
        }


def measure(
    model: Model, images: Tensor, situation: Situation, *, seconds: float, runtimes: Sequence[str] = tuple(RUNTIMES)
) -> Measured:
    """Time every way in one situation, each round of a way with another batch.

    Args:
        model: On the CPU.
        images: (n, 3, H, W), at least one; taken in turn.
        situation: Batch and threads.
        seconds: How long to measure.
        runtimes: Which of the dense runtimes.
    """
    batches = _batches(images, situation.batch)
    with _threads(situation.threads):
        runs: dict[str, Run] = {}
        unavailable = {}
        for name in runtimes:
            run = made(name, model, batches[0], situation.threads)
            if isinstance(run, Unavailable):
                unavailable[name] = run.reason
            else:
                runs[f"dense: {name}"] = run
        cost_ratio = None
        if model.has_gates:
            compiled = model.compile_gated(threads=situation.threads)
            runs[MASKED] = lambda batch: model.gated(batch).features
            runs[EXECUTOR] = lambda batch: compiled(batch).features
            cost_ratio = float(torch.cat([compiled(batch).ratio for batch in batches]).mean())
        times = in_turns({name: _way(run, batches) for name, run in runs.items()}, seconds=seconds)
    return Measured(situation, times, cost_ratio, unavailable)


def _way(run: Run, batches: Sequence[Tensor]) -> Callable[[int], Any]:
    return lambda number: run(batches[number % len(batches)])


def _batches(images: Tensor, size: int) -> list[Tensor]:
    """All images in batches of one size, some of them twice if need be."""
    count = -(-len(images) // size)
    numbers = torch.arange(count * size) % len(images)
    return [images[some] for some in numbers.split(size)]


@contextmanager
def _threads(number: int) -> Iterator[None]:
    """Torch works with so many threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)
