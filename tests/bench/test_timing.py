"""Times are taken in turns, and ratios within rounds."""

from __future__ import annotations

import pytest

from helpers.clock import StoppedClock
from ssl_dc.bench import timing
from ssl_dc.bench.timing import CALLS, WARM_UP, Times, in_turns, seconds_of


def test_every_way_has_its_turn_in_every_round() -> None:
    order: list[str] = []
    times = in_turns({"a": lambda _: order.append("a"), "b": lambda _: order.append("b")}, seconds=0, min_rounds=2)
    assert {way: len(calls) for way, calls in times.milliseconds.items()} == {"a": 2 * CALLS, "b": 2 * CALLS}
    assert order[-2 * (CALLS + 1) :] == ["a"] * (CALLS + 1) + ["b"] * (CALLS + 1)


def test_a_way_is_told_the_call() -> None:
    seen: list[int] = []
    in_turns({"a": seen.append}, seconds=0, min_rounds=2)
    untimed = seen[WARM_UP :: CALLS + 1]
    timed = [number for place, number in enumerate(seen[WARM_UP:]) if place % (CALLS + 1)]
    assert timed == list(range(2 * CALLS))  # every image has its turn, however many there are
    assert untimed == [CALLS, 2 * CALLS]


def test_the_pauses_of_many_ways_take_longer_than_the_time_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = StoppedClock(monkeypatch, "ssl_dc.bench.timing")
    monkeypatch.setattr(timing, "PAUSE", 0.5)
    for ways, seconds in ((2, 1.0), (2, 30.0)):
        since = clock.seconds
        in_turns(dict.fromkeys(map(str, range(ways)), lambda _: None), seconds=seconds)
        assert clock.seconds - since >= seconds_of(ways, seconds) == max(seconds, 10.0)


def test_milliseconds(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = StoppedClock(monkeypatch, "ssl_dc.bench.timing")
    times = in_turns({"slow": lambda _: clock.pass_by(0.02)}, seconds=0, min_rounds=3)
    assert times.timing("slow").median == pytest.approx(20)


@pytest.mark.parametrize("seconds", [float("nan"), float("inf")])
def test_times_that_have_no_end_are_refused(seconds: float) -> None:
    with pytest.raises(ValueError, match="seconds must be finite"):
        in_turns({"a": print}, seconds=seconds)


def test_a_ratio_is_the_median_of_the_rounds_ratios() -> None:
    times = Times({"slow": [10.0, 40.0, 90.0], "fast": [5.0, 10.0, 90.0]})
    assert times.ratio("slow", "fast") == 2.0
    assert times.timing("slow").median == 40.0
    assert times.timing("slow").p10 == pytest.approx(16.0)
    assert times.timing("slow").p90 == pytest.approx(80.0)
