"""What a GPU waits for in a training: the times in which it has nothing to do, by what the CPU does meanwhile."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any, NamedTuple

import ssl_dc

Interval = tuple[float, float]
"""Start and end."""


class Span(NamedTuple):
    """What the CPU did from when to when, in microseconds since 1970, as the profiler counts."""

    name: str
    start: float
    end: float


class Doings(ssl_dc.Watcher):
    """Notes what the CPU does in the steps of a training. To profile the CPU would slow it down far more.

    "views" waits for views that threads draw, or draws them; "copy" brings them to the device; "pass" launches forward and
    backward pass, "loss" the terms, "checks" the look at what is not finite, and "optimizer" the update. "metrics" launches
    what a logged step measures, and "reading" reads it, after the next step.

    Args:
        trainer: Its methods are wrapped, those of the network after the first step: by then the network is compiled.
    """

    def __init__(self, trainer: Any) -> None:
        self.trainer = trainer
        self.spans: list[Span] = []
        rest, micro_batches = trainer.batches.rest, trainer._micro_batches
        trainer.batches.rest = lambda step: self._timed_items("views", rest(step))
        trainer._micro_batches = lambda: self._timed_items("copy", micro_batches())

    def on_step_end(self, step: int) -> None:
        """Wrap the rest after the first step."""
        if step > 1:
            return
        trainer = self.trainer
        for owner, method, name in (
            (trainer, "_forward", "pass"),
            (trainer.accelerator, "backward", "pass"),
            (trainer, "_terms", "loss"),
            (trainer, "_is_finite", "checks"),
            (trainer.optimizer, "step", "optimizer"),
            (trainer.optimizer, "zero_grad", "optimizer"),
            (trainer.budget, "after_step", "budget control"),
            (trainer, "_measured", "metrics"),
            (trainer, "_values", "reading"),
        ):
            setattr(owner, method, self._timed(name, getattr(owner, method)))

    def _timed(self, name: str, work: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*arguments: Any, **named: Any) -> Any:
            start = time.time_ns()
            try:
                return work(*arguments, **named)
            finally:
                self.spans.append(Span(name, start / 1000, time.time_ns() / 1000))

        return timed

    def _timed_items(self, name: str, items: Iterator[Any]) -> Iterator[Any]:
        following = self._timed(name, lambda: next(items, None))
        try:
            while (item := following()) is not None:
                yield item
        finally:
            if isinstance(items, Generator):
                items.close()


def gaps(intervals: Sequence[Interval]) -> list[Interval]:
    """The times, from the first kernel's start to the last one's end, in which none runs."""
    found, covered = [], min(start for start, _ in intervals)
    for start, stop in sorted(intervals):
        if start > covered:
            found.append((covered, start))
        covered = max(covered, stop)
    return found


def idle_share(intervals: Sequence[Interval]) -> float:
    """Share of the time, from the first kernel's start to the last one's end, in which none runs."""
    begin, end = min(start for start, _ in intervals), max(stop for _, stop in intervals)
    return sum(stop - start for start, stop in gaps(intervals)) / (end - begin)


BETWEEN = 10.0
"""A GPU that has nothing to do for fewer microseconds goes from one kernel to the next, also inside a CUDA graph."""


def waits(kernels: Sequence[Interval], spans: Sequence[Span]) -> dict[str, float]:
    """Share of the time in which the GPU has nothing to do, by what the CPU does meanwhile. The sum is the idle share.

    Args:
        kernels: When each kernel or copy ran, in the clock of the spans.
        spans: What the CPU did, one after the other or one inside another. Inside, the inner one counts. The time outside
            all of them is "other".
    """
    begin, end = min(start for start, _ in kernels), max(stop for _, stop in kernels)
    share: dict[str, float] = defaultdict(float)
    pieces = innermost(spans)
    for start, stop in gaps(kernels):
        if stop - start < BETWEEN:
            share["from kernel to kernel"] += stop - start
            continue
        left = stop - start
        for piece in pieces:
            shared = max(0.0, min(stop, piece.end) - max(start, piece.start))
            if shared:
                share[piece.name] += shared
                left -= shared
        share["other"] += left
    return {name: total / (end - begin) for name, total in sorted(share.items(), key=lambda each: -each[1])}


def innermost(spans: Sequence[Span]) -> list[Span]:
    """The spans cut into pieces that do not overlap: each belongs to the innermost span there."""
    pieces: list[Span] = []
    open_spans: list[Span] = []
    at = 0.0

    def cut(until: float) -> None:
        nonlocal at
        if open_spans and until > at:
            pieces.append(Span(open_spans[-1].name, at, until))
        at = max(at, until)

    for span in sorted(spans, key=lambda each: (each.start, -each.end)):
        while open_spans and open_spans[-1].end <= span.start:
            cut(open_spans[-1].end)
            open_spans.pop()
        cut(span.start)
        open_spans.append(span)
    while open_spans:
        cut(open_spans[-1].end)
        open_spans.pop()
    return pieces
