"""The learning rate and the progress of a training whose length is changed on the way."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.settings import TINY, config_of
from ssl_dc.config import TrainingConfig
from ssl_dc.config.schema import EarlierLength
from ssl_dc.errors import ConfigError
from ssl_dc.training.length import Lengths, with_length


def training(epochs: int, *earlier: tuple[int, int], warmup_share: float = 0.02) -> TrainingConfig:
    changes = tuple(EarlierLength(epochs=number, until_step=step) for number, step in earlier)
    return TrainingConfig(epochs=epochs, earlier_epochs=changes, warmup_share=warmup_share)


def test_a_finished_run_warms_up_again_to_the_cosine_of_the_longer_one() -> None:
    # 10 epochs of 10 steps, then 30 of them; a tenth of 200 remaining steps joins the two
    lengths = Lengths(training(30, (10, 100), warmup_share=0.1), steps_per_epoch=10)

    def cosine(step: int, warmup: int, total: int) -> float:
        return 0.5 + 0.5 * math.cos(math.pi * (step - warmup) / (total - warmup))

    assert lengths.total_steps == 300
    assert lengths.share(5) == pytest.approx(0.01 + 0.99 * 5 / 10), "the first warm-up is that of 10 epochs"
    assert lengths.share(99) == pytest.approx(cosine(99, 10, 100))
    for step in (100, 107, 119):
        assert lengths.share(step) == pytest.approx((step - 99) / 21 * cosine(step, 30, 300))
    for step in (120, 200, 299):
        assert lengths.share(step) == pytest.approx(cosine(step, 30, 300))
    assert lengths.progress(99, done=100) == 1
    assert lengths.progress(100, done=100) == pytest.approx(1 / 3)


def test_an_unfinished_run_goes_from_the_rate_that_it_had() -> None:
    lengths = Lengths(training(20, (10, 40), (40, 60), warmup_share=0.1), steps_per_epoch=10)
    first = 0.5 + 0.5 * math.cos(math.pi * 30 / 90)  # at step 40 of 100, warm-up 10
    second = 0.5 + 0.5 * math.cos(math.pi * 20 / 360)  # at step 60 of 400, warm-up 40
    third = 0.5 + 0.5 * math.cos(math.pi * 40 / 180)  # at step 60 of 200, warm-up 20
    share = 1 / 15  # 14 of the 140 remaining steps join, the first of them at step 60
    assert lengths.share(60) == pytest.approx((1 - share) * second + share * third)
    assert lengths.share(40) == pytest.approx(16 / 17 * first + 1 / 17 * 1.0), "16 of 160 steps; 40 is the peak of 400"
    assert lengths.share(74) == pytest.approx(0.5 + 0.5 * math.cos(math.pi * 54 / 180))


@given(st.integers(1, 20), st.integers(1, 20), st.integers(1, 40), st.floats(0, 0.5), st.data())
def test_the_rate_stays_within_the_peak_and_joins_without_a_jump(
    steps_per_epoch: int, before: int, after: int, warmup_share: float, data: st.DataObject
) -> None:
    until = data.draw(st.integers(1, before * steps_per_epoch))
    total = after * steps_per_epoch
    changed = training(after, (before, until), warmup_share=warmup_share)
    if until >= total:
        with pytest.raises(ConfigError, match="are done already"):
            Lengths(changed, steps_per_epoch)
        return
    lengths = Lengths(changed, steps_per_epoch)
    plain = Lengths(training(before, warmup_share=warmup_share), steps_per_epoch)
    longer = Lengths(training(after, warmup_share=warmup_share), steps_per_epoch)
    shares = [lengths.share(step) for step in range(total)]
    assert all(0 <= share <= 1 for share in shares)
    assert shares[:until] == [plain.share(step) for step in range(until)]
    joining = round(warmup_share * (total - until))
    assert shares[until + joining :] == [longer.share(step) for step in range(until + joining, total)]
    held = plain.share(until)
    for step in range(until, until + joining):
        low, high = sorted((held, longer.share(step)))
        assert low - 1e-12 <= shares[step] <= high + 1e-12


def test_what_changes_is_said_once() -> None:
    lengths = Lengths(training(30, (10, 100), warmup_share=0.1), steps_per_epoch=10)
    said = lengths.change_at(100)
    assert said.startswith("after step 100 this training goes on for 30 epochs in all, in place of 10")
    assert "from 0% to 75% of its peak within 21 step(s)" in said
    assert [step for step in range(301) if lengths.change_at(step)] == [100]


def earlier(settings: dict[str, object], epochs: int, step: int) -> list[tuple[int, int]]:
    changed = with_length(config_of({**TINY, **settings}), epochs, step).training
    assert changed.epochs == epochs
    return [(part.epochs, part.until_step) for part in changed.earlier_epochs]


def test_the_config_keeps_the_lengths_that_were_followed() -> None:
    assert earlier({"training.epochs": 4}, 8, 16) == [(4, 16)]
    assert earlier({"training.epochs": 4}, 8, 0) == [], "nothing is done yet"
    assert earlier({"training.epochs": 4}, 4, 16) == [], "nothing changes"
    twice = {"training.epochs": 8, "training.earlier_epochs": [{"epochs": 4, "until_step": 16}]}
    assert earlier(twice, 12, 32) == [(4, 16), (8, 32)]
    assert earlier(twice, 12, 16) == [(4, 16)], "no step was taken for 8 epochs"
    assert earlier(twice, 4, 16) == [], "the first plan again"
    assert earlier(twice, 12, 9) == [(4, 9)], "a newer resume point was lost"


@pytest.mark.parametrize(
    ("epochs", "changes", "says"),
    [
        (8, [(4, 17)], "4 epochs are 16 steps, and do not reach step 17"),
        (3, [(4, 16)], "3 epochs are 12 steps, and 16 steps are done already; train for 5 epochs or more"),
        (4, [(6, 16)], "train for 5 epochs or more"),
    ],
)
def test_lengths_that_cannot_be(epochs: int, changes: list[tuple[int, int]], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        Lengths(training(epochs, *changes), steps_per_epoch=4)


def test_changes_must_ascend() -> None:
    changes = [{"epochs": 4, "until_step": 16}, {"epochs": 8, "until_step": 16}]
    with pytest.raises(ConfigError, match="until_step must ascend"):
        config_of({**TINY, "training.earlier_epochs": changes})
