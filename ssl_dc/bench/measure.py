"""Measures how much time the gates save.

The dense route runs in every runtime and precision there is, the gated route as training runs it and in the executor, in
float32, bf16 and int8.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ssl_dc.bench.runtimes import RUNTIMES, DenseNetwork, Precision, Run, Unavailable, need_bf16, runtime_or_reason
from ssl_dc.bench.timing import Times, Timing, in_turns
from ssl_dc.compiled.executor import Executor
from ssl_dc.compiled.precisions import BF16
from ssl_dc.compiled.torch_threads import torch_threads
from ssl_dc.errors import RunError, SslDcError
from ssl_dc.evaluation.report import Report, ReportTable

MASKED = "gated: masked"
EXECUTOR = "gated: executor"
BF16_EXECUTOR = "gated: executor-bf16"
INT8_EXECUTOR = "gated: executor-int8"
EXECUTORS = (EXECUTOR, BF16_EXECUTOR, INT8_EXECUTOR)
DENSE_EXECUTOR = "dense: executor"


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
class Measured(Report):
    """The times of all ways in one situation.

    Attributes:
        situation: The situation.
        times: The times of each way, by name.
        cost_ratio: Mean cost of the images on the gated route, as a share of the dense MACs; None without gates.
        unavailable: Runtimes that this machine does not have, with the reason.
    """

    situation: Situation
    times: Times
    cost_ratio: float | None
    unavailable: dict[str, str] = field(default_factory=dict)

    @property
    def fastest_dense(self) -> str:
        """The way with the smallest median among those that run the dense route in float32."""
        return self._fastest("float32")

    @property
    def fastest_dense_of_all(self) -> str:
        """The way with the smallest median among those that run the dense route, in whatever precision."""
        return self._fastest("float32", "bf16", "int8")

    def _fastest(self, *precisions: Precision) -> str:
        dense = [way for way in self.times.milliseconds if way.startswith("dense") and precision_of(way) in precisions]
        return min(dense, key=lambda way: self.times.timing(way).median)

    def speed_up(self, way: str) -> float:
        """How many times faster a way is than the fastest dense way in float32, median over calls."""
        return self.times.ratio(self.fastest_dense, way)

    @property
    def promise(self) -> float | None:
        """The speed-up that the MACs promise: how many times fewer the gated route needs; None without gates."""
        return None if self.cost_ratio is None else 1 / self.cost_ratio

    @property
    def kept(self) -> float | None:
        """The executor's speed-up as a share of the promised one; None without gates."""
        return None if self.promise is None else self.speed_up(EXECUTOR) / self.promise

    @property
    def gates_save(self) -> bool | None:
        """Whether the executor runs the gated route faster than the dense one; None if it did not run both."""
        if not {EXECUTOR, DENSE_EXECUTOR} <= set(self.times.milliseconds):
            return None
        return self.times.ratio(DENSE_EXECUTOR, EXECUTOR) > 1

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
            "fastest_dense_of_all": self.fastest_dense_of_all,
            "kept_share_of_promise": self.kept,
            "gates_save_time": self.gates_save,
            "ways": {
                way: {
                    "precision": precision_of(way),
                    **vars(self.timing(way)),
                    "speed_up": self.speed_up(way),
                    "calls": len(calls),
                }
                for way, calls in self.times.milliseconds.items()
            },
            "unavailable": self.unavailable,
        }

    def tables(self) -> Sequence[ReportTable]:
        """One row for each way, in milliseconds a batch."""
        columns = ("way", "precision", "median", "p10", "p90", "images / s", "speed-up")
        rows = [self._row(way) for way in self.times.milliseconds]
        return [ReportTable(f"{self.situation}: milliseconds", columns, rows, note="\n".join(self._notes()))]

    def _row(self, way: str) -> tuple[str, ...]:
        timing = self.timing(way)
        times = (f"{value:.3f}" for value in (timing.median, timing.p10, timing.p90))
        rate = 1000 * self.situation.batch / timing.median
        return (way, precision_of(way), *times, f"{rate:,.1f}", f"{self.speed_up(way):.2f}")

    def _notes(self) -> Iterator[str]:
        yield f"Speed-ups are over {self.fastest_dense!r}, the fastest dense way in float32, in the same rounds."
        if self.kept is not None and self.promise is not None and self.cost_ratio is not None:
            outcome = (
                f"the executor keeps {100 * self.kept:.0f} % of that."
                if self.kept <= 1
                else f"the executor is faster than that, since {self.fastest_dense!r} is slow: measure faster dense ways."
            )
            promised = f"costs {self.cost_ratio:.4f} of the dense MACs, which promises {self.promise:.2f}"
            yield f"The gated route {promised}; {outcome}"
        if self.gates_save is False:
            slower = 1 / self.times.ratio(DENSE_EXECUTOR, EXECUTOR)
            yield (
                f"The gates cost more time than they save: the executor takes {slower:.2f} times as long for the gated"
                " route as for the dense one."
            )
        dense = self.fastest_dense_of_all
        for way in EXECUTORS:
            if way in self.times.milliseconds and precision_of(dense) != "float32":
                ratio = self.times.ratio(dense, way)
                yield f"{dense!r}, the fastest dense way of all, takes {ratio:.2f} times as long as {way!r}."


def precision_of(way: str) -> Precision:
    """The precision in which a way multiplies."""
    kind, _, name = way.partition(": ")
    return RUNTIMES[name].precision if kind == "dense" or name in RUNTIMES else "float32"


def is_gated(way: str) -> bool:
    """Whether a way runs the gated route."""
    return way.startswith("gated")


def gated_executor(way: str, network: DenseNetwork, threads: int) -> Executor | Unavailable:
    """The executor of a gated way, or the reason why there is none."""
    try:
        if way == INT8_EXECUTOR:
            return network.int8_gated.with_threads(threads)
        if way == BF16_EXECUTOR:
            need_bf16()
            return network.model.compile_gated(threads=threads, precision=BF16)
    except SslDcError as error:
        return Unavailable(str(error))
    return network.model.compile_gated(threads=threads)


def measure(
    network: DenseNetwork,
    images: Tensor,
    situation: Situation,
    *,
    seconds: float,
    runtimes: Sequence[str] = tuple(RUNTIMES),
) -> Measured:
    """Time every way in one situation, with another batch in each call.

    Args:
        network: The dense network of the model.
        images: (n, 3, H, W), at least one.
        situation: Batch and threads.
        seconds: How long to measure.
        runtimes: Names of the dense runtimes, from ``RUNTIMES``.

    Raises:
        RunError: If none of those in float32 runs here; with the reasons.
    """
    model = network.model
    batches = _batches(images, situation.batch)
    with torch_threads(situation.threads):
        runs: dict[str, Run] = {}
        unavailable = {}
        for name in runtimes:
            run = runtime_or_reason(name, network, batches[0], situation.threads)
            if isinstance(run, Unavailable):
                unavailable[name] = run.reason
            else:
                runs[f"dense: {name}"] = run
        if not any(precision_of(way) == "float32" for way in runs):
            reasons = "; ".join(f"{name}: {reason}" for name, reason in unavailable.items())
            raise RunError(f"no dense way in float32, over which speed-ups are, runs here ({reasons})")
        cost_ratio = None
        if model.has_gates:
            runs[MASKED] = lambda batch: model.gated(batch).features
            for way in EXECUTORS:
                compiled = gated_executor(way, network, situation.threads)
                if isinstance(compiled, Unavailable):
                    unavailable[way.partition(": ")[2]] = compiled.reason
                    continue
                runs[way] = features_of(compiled)
                if way == EXECUTOR:
                    cost_ratio = float(torch.cat([compiled(batch).ratio for batch in batches]).mean())
        times = in_turns({name: _way(run, batches) for name, run in runs.items()}, seconds=seconds)
    return Measured(situation, times, cost_ratio, unavailable)


def features_of(compiled: Executor) -> Run:
    """A compiled network as a function that gives features."""
    return lambda batch: compiled(batch).features


def _way(run: Run, batches: Sequence[Tensor]) -> Callable[[int], Any]:
    return lambda number: run(batches[number % len(batches)])


def _batches(images: Tensor, size: int) -> list[Tensor]:
    """All images in batches of one size; some images occur twice if the number does not fit."""
    count = -(-len(images) // size)
    numbers = torch.arange(count * size) % len(images)
    return [images[some] for some in numbers.split(size)]
