"""What progress says, and that it fits every width."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from helpers.clock import StoppedClock
from ssl_dc.progress.figures import LARGEST_WEIGHT, MEMORY_SECONDS, Figures
from ssl_dc.progress.wording import duration, first_line, measured, second_line, shortened
from ssl_dc.trackers.base import COMPILING, StepMetrics

VALUES = {
    "loss": 24.3117,
    "lr": 0.00123,
    "terms/invariance": 12.1,
    "terms/variance": 9.87,
    "terms/covariance": 1.234,
    "terms/budget": 0.0213,
    "terms/bound": 0.0,
    "embedding_std": 0.4,
    "effective_rank": 43.2,
    "cost_ratio": 0.3121,
    "evaluated_cost_ratio": 0.2987,
}


def figures_at(clock: StoppedClock, step: int, total: int, seconds: float, batch: int | None = 16) -> Figures:
    """The figures of a training whose steps all took as long, the last of them now."""
    figures = Figures()
    figures.batch_size = batch
    figures.begin(max(0, step - 2), total)
    for number in range(max(0, step - 2) + 1, step + 1):
        clock.pass_by(seconds)
        figures.take(number)
    return figures


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> StoppedClock:
    return StoppedClock(monkeypatch, "ssl_dc.progress.figures")


@pytest.mark.parametrize(
    ("width", "line"),
    [
        (80, "step 120/4000 <40> left 1:04:40  16 images/s"),
        (60, "step 120/4000 <20> left 1:04:40  16 images/s"),
        (43, "step 120/4000 <3> left 1:04:40  16 images/s"),
        (42, "step 120/4000 <15> left 1:04:40"),
        (40, "step 120/4000 <13> left 1:04:40"),
        (29, "step 120/4000 <0> left 1:04:40"),
        (20, "step 120/4000 <0> "),
        (7, "step 12 <0> "),
    ],
)
def test_the_first_line_gives_up_speed_then_bar_then_time(clock: StoppedClock, width: int, line: str) -> None:
    left, bar, right = first_line(figures_at(clock, 120, 4000, 1.0), width)
    assert f"{left} <{bar}> {right}" == line


@given(
    total=st.integers(1, 10**7),
    share=st.floats(0, 1),
    seconds=st.floats(1e-4, 1e4),
    batch=st.integers(1, 8192),
    width=st.integers(58, 300),
)
def test_every_first_line_of_58_columns_has_all_and_fills_them(
    total: int, share: float, seconds: float, batch: int, width: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        figures = figures_at(
            StoppedClock(patch, "ssl_dc.progress.figures"), max(1, int(share * total)), total, seconds, batch
        )
        left, bar, right = first_line(figures, width)
    assert left == f"step {figures.step}/{total}"
    assert re.fullmatch(r"left (\d+ d( \d\d h)?|(\d+:)?\d?\d:\d\d)  [\d,.e-]+k? images/s", right)
    assert bar >= 3
    assert len(left) + 1 + bar + 1 + len(right) == width


@pytest.mark.parametrize(
    ("width", "line"),
    [
        (
            134,
            "loss 24.31 [invariance 12.1 variance 9.87 covariance 1.23 budget 0.0213 bound 0] cost 0.312 (evaluated 0.299)"
            " rank 43 lr 1.23e-03",
        ),
        (
            116,
            "loss 24.31 [invariance 12.1 variance 9.87 covariance 1.23 budget 0.0213 bound 0] cost 0.312"
            " rank 43 lr 1.23e-03",
        ),
        (100, "loss 24.31 [invariance 12.1 variance 9.87 covariance 1.23 budget 0.0213 bound 0] cost 0.312 rank 43"),
        (78, "loss 24.31 [inv 12.1 var 9.87 cov 1.23 bud 0.0213 bou 0] cost 0.312 rank 43"),
        (74, "loss 24.31 [inv 12.1 var 9.87 cov 1.23 bud 0.0213 ...] cost 0.312 rank 43"),
        (58, "loss 24.31 [inv 12.1 var 9.87 ...] cost 0.312 rank 43"),
        (40, "loss 24.31 cost 0.312 rank 43"),
        (25, "loss 24.31 cost 0.312"),
        (12, "loss 24.31"),
        (6, "los..."),
        (2, ".."),
    ],
)
def test_the_second_line_gives_up_what_matters_least(clock: StoppedClock, width: int, line: str) -> None:
    figures = figures_at(clock, 20, 40, 1.0)
    figures.metrics = StepMetrics(20, 40, 2, VALUES, 16.0)
    assert second_line(figures, width) == line


@given(
    names=st.lists(st.text(min_size=1, max_size=20), max_size=6, unique=True),
    value=st.floats(allow_nan=True, allow_infinity=True),
    width=st.integers(1, 200),
)
def test_no_term_of_a_stranger_makes_a_line_too_wide_or_two_of_it(names: list[str], value: float, width: int) -> None:
    figures = Figures()
    figures.metrics = StepMetrics(1, 2, 1, {"loss": value, **{f"terms/{name}": value for name in names}}, 1.0)
    line = second_line(figures, width)
    assert cell_len(line) <= width
    assert not re.search(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]", line)  # no control character, and one line


def test_the_largest_terms_are_shown_where_not_all_fit() -> None:
    values = {"loss": 3.0, "terms/alpha": 0.1, "terms/beta": -2.0, "terms/gamma": 1.0}
    assert "loss 3 [bet -2 gam 1 ...]" in list(measured(values))


def test_shortened_names_stay_apart() -> None:
    values = {"loss": 3.0, "terms/contrast": 1.0, "terms/consistency": 1.0, "terms/con": 1.0}
    assert "loss 3 [cont 1 cons 1 con 1]" in list(measured(values))


def test_what_is_not_known_yet_is_said(clock: StoppedClock) -> None:
    figures = Figures()
    figures.batch_size = 16
    figures.begin(0, 40)
    assert first_line(figures, 60).right == "left -:--  - images/s"
    assert second_line(figures, 60) == "loss not measured yet"
    figures.begin_phase("preparing the first batch")
    clock.pass_by(75)
    assert second_line(figures, 60) == "preparing the first batch 1:15"
    figures.batch_size = None
    assert first_line(figures, 60).right == "left -:--"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0:00"),
        (59.9, "0:59"),
        (754, "12:34"),
        (3600, "1:00:00"),
        (86399, "23:59:59"),
        (86400 * 2 + 4 * 3600, "2 d 04 h"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_shortened_text_is_cut_by_columns_not_letters() -> None:
    assert shortened("誤差誤差", 8) == "誤差誤差"
    assert cell_len(shortened("誤差誤差誤差", 8)) <= 8


@given(durations=st.lists(st.floats(1e-3, 1e3), min_size=2, max_size=30), batch=st.integers(1, 4096))
def test_the_speed_is_an_exponential_mean_of_all_steps_but_the_first(durations: list[float], batch: int) -> None:
    """Weight of step i: w_i * product of (1 - w_j) over the later steps j; w = min(0.1, 1 - exp(-seconds / 10))."""
    with pytest.MonkeyPatch.context() as patch:
        clock = StoppedClock(patch, "ssl_dc.progress.figures")
        figures = Figures()
        figures.batch_size = batch
        figures.begin(0, 100)
        for number, seconds in enumerate(durations, start=1):
            clock.pass_by(seconds)
            figures.take(number)
        speed, left = figures.images_per_second, figures.seconds_left
    own = [min(LARGEST_WEIGHT, 1 - 2.718281828459045 ** (-seconds / MEMORY_SECONDS)) for seconds in durations[1:]]
    weights = list(own)
    for number in range(len(own)):
        for later in own[number + 1 :]:
            weights[number] *= 1 - later
    mean = sum(w * seconds for w, seconds in zip(weights, durations[1:], strict=True)) / sum(weights)
    assert speed == pytest.approx(batch / mean, rel=1e-6)
    assert left == pytest.approx(mean * (100 - len(durations)), rel=1e-6)


def test_a_step_that_was_compiled_says_nothing_of_the_speed(clock: StoppedClock) -> None:
    figures = Figures()
    figures.batch_size = 10
    figures.begin(0, 10)
    for number, (seconds, compiles) in enumerate([(3.0, False), (500.0, True), (2.0, False), (90.0, True)], start=1):
        if compiles:
            figures.begin_phase(COMPILING)
        clock.pass_by(seconds)
        figures.take(number)
    assert figures.images_per_second == pytest.approx(10 / 2.0)
    assert figures.seconds_left == pytest.approx(6 * 2.0)


def test_time_left_goes_down_within_a_long_step_but_not_below_what_the_others_take(clock: StoppedClock) -> None:
    figures = figures_at(clock, 30, 40, 60.0)
    assert figures.seconds_left == pytest.approx(600)
    clock.pass_by(20)
    assert figures.seconds_left == pytest.approx(580)
    clock.pass_by(200)
    assert figures.seconds_left == pytest.approx(540)
