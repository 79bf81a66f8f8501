"""What a GPU waits for: the benchmark adds up its idle times by what the CPU does meanwhile."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest

from helpers.benchmarks import benchmark
from helpers.settings import TINY
from helpers.training import Told, trainer_of

gpu_waits = benchmark("gpu_waits")


def test_idle_times_belong_to_the_innermost_doing() -> None:
    """1,000 microseconds; kernels of two streams overlap, and a pause of 4 lies between two kernels."""
    kernels = [(0, 100), (50, 120), (124, 200), (400, 500), (900, 1000)]
    spans = [
        gpu_waits.Span("copy", 180, 300),
        gpu_waits.Span("views", 210, 250),
        gpu_waits.Span("pass", 350, 600),
        gpu_waits.Span("metrics", 700, 890),
    ]
    assert gpu_waits.gaps(kernels) == [(120, 124), (200, 400), (500, 900)]
    found = gpu_waits.waits(kernels, spans)
    expected = {
        "from kernel to kernel": 4,
        "copy": 10 + 50,
        "views": 40,
        "pass": 50 + 100,
        "metrics": 190,
        "other": 50 + 100 + 10,
    }
    assert found == pytest.approx({name: micros / 1000 for name, micros in expected.items()})
    assert sum(found.values()) == pytest.approx(gpu_waits.idle_share(kernels))


def test_each_microsecond_is_counted_once() -> None:
    """Random nested spans against a count of single microseconds."""
    draw = random.Random(0)
    for _ in range(20):
        edges = sorted(draw.sample(range(2000), 40))
        kernels = [(start, start + draw.randrange(1, 60)) for start in edges]
        spans = []
        for start, end in zip(edges[::4], edges[3::4], strict=True):
            inner = sorted(draw.sample(range(start, end + 1), 2))
            spans += [gpu_waits.Span("outer", start, end), gpu_waits.Span("inner", *inner)]
        counted: dict[str, int] = {}
        for start, stop in gpu_waits.gaps(kernels):
            for micro in range(start, stop):
                inside = [span.name for span in spans if span.start <= micro < span.end]
                name = "inner" if "inner" in inside else "outer" if inside else "other"
                name = "from kernel to kernel" if stop - start < gpu_waits.BETWEEN else name
                counted[name] = counted.get(name, 0) + 1
        whole = max(stop for _, stop in kernels) - edges[0]
        found = {name: share for name, share in gpu_waits.waits(kernels, spans).items() if share}
        assert found == pytest.approx({name: micros / whole for name, micros in counted.items()})


def test_every_part_of_a_step_is_noted_and_the_training_is_the_same() -> None:
    settings = {**TINY, "training.epochs": 2, "training.log_every": 1, "views.name": "batched"}
    plain, told = Told(), Told()
    trainer_of(settings).fit(watchers=[plain])
    trainer = trainer_of(settings)
    doings = gpu_waits.Doings(trainer)
    trainer.fit(watchers=[told, doings])
    assert told.values("loss") == plain.values("loss")
    seen = [span.name for span in doings.spans]
    steps = trainer.total_steps
    assert seen.count("pass") == 2 * (steps - 1), "forward and backward"
    assert seen.count("metrics") == seen.count("loss") == seen.count("checks") == seen.count("budget control") == steps - 1
    assert seen.count("optimizer") == 2 * (steps - 1), "the update, and its end"
    assert seen.count("copy") >= steps
    assert seen.count("views") >= steps
    assert all(span.end >= span.start for span in doings.spans)
    pieces = gpu_waits.innermost(doings.spans)
    assert all(one.end <= other.start for one, other in pairwise(pieces))
