"""The learning rate by step."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssl_dc.training.schedule import Schedule


@pytest.mark.parametrize(
    ("step", "share"),
    [
        (0, 0.01),
        (1, 0.2575),
        (2, 0.505),
        (3, 0.7525),
        (4, 1.0),
        (6, 0.75),
        (7, 0.5),
        (8, 0.25),
        (10, 0.0),
    ],
)
def test_linear_from_a_hundredth_then_cosine_to_nothing(step: int, share: float) -> None:
    assert Schedule(warmup_steps=4, total_steps=10).share(step) == pytest.approx(share, abs=1e-12)


def test_without_warm_up_it_begins_at_the_peak() -> None:
    schedule = Schedule(warmup_steps=0, total_steps=2)
    assert [schedule.share(step) for step in range(3)] == pytest.approx([1.0, 0.5, 0.0])


def test_the_papers_schedule_at_its_length() -> None:
    schedule = Schedule(warmup_steps=10 * 97, total_steps=500 * 97)
    assert 0.3 * schedule.share(0) == pytest.approx(0.003)
    assert schedule.share(10 * 97) == 1
    assert schedule.share(255 * 97) == pytest.approx(0.5)


@given(st.integers(0, 50), st.integers(1, 200))
def test_rises_then_falls_and_stays_within_the_peak(warmup: int, rest: int) -> None:
    schedule = Schedule(warmup, warmup + rest)
    shares = [schedule.share(step) for step in range(warmup + rest)]
    assert all(0 < share <= 1 for share in shares)
    assert shares[:warmup] == sorted(shares[:warmup])
    assert shares[warmup:] == sorted(shares[warmup:], reverse=True)
    assert max(shares[warmup:]) == 1
    assert math.isclose(schedule.share(warmup + rest), 0, abs_tol=1e-12)


def test_a_run_that_is_all_warm_up_has_a_learning_rate_for_every_step() -> None:
    schedule = Schedule(warmup_steps=5, total_steps=5)
    assert [schedule.share(step) for step in range(5)] == pytest.approx([0.01, 0.208, 0.406, 0.604, 0.802])


def test_a_short_run_warms_up_for_as_many_steps_as_a_run_needs() -> None:
    assert Schedule.of(0.02, 100, 400) == Schedule(100, 400)
    assert Schedule.of(0.5, 100, 400) == Schedule(200, 400)
    assert Schedule.of(0.02, 0, 400) == Schedule(8, 400)


def test_the_papers_schedule_is_long_enough_for_the_least_warm_up() -> None:
    assert Schedule.of(0.02, 200, 500 * 97) == Schedule(970, 500 * 97)


@given(st.floats(0, 1), st.integers(0, 300), st.integers(1, 1000))
def test_the_rate_rises_no_faster_than_the_least_warm_up_allows(share: float, least: int, total: int) -> None:
    schedule = Schedule.of(share, least, total)
    rates = [schedule.share(step) for step in range(total)]
    assert all(0 < rate <= 1 for rate in rates)
    for step, rate in enumerate(rates):
        assert rate <= 0.01 + (step + 1) / max(least, 1)
    if least:
        assert max(later - sooner for sooner, later in zip([0.01, *rates], rates, strict=False)) <= 1 / least + 1e-9
