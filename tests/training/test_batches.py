"""Batches from a loader of one's own."""

from __future__ import annotations

from itertools import islice

import pytest
import torch
from torch import Tensor

from ssl_dc.config import TrainingConfig
from ssl_dc.errors import ConfigError
from ssl_dc.training.batches import LoaderBatches


class Numbers:
    """A loader whose batch says in which pass and place it is."""

    def __init__(self, batches: int) -> None:
        self.batches = batches
        self.passes = 0

    def __len__(self) -> int:
        return self.batches

    def __iter__(self):  # type: ignore[no-untyped-def]
        self.passes += 1
        for number in range(self.batches):
            yield [torch.full((1, 1), float(self.passes)), torch.full((1, 1), float(number))]


def places(batches: LoaderBatches, first_step: int) -> list[int]:
    return [int(view[1].item()) for view in batches.rest(first_step)]


@pytest.mark.parametrize(("batches", "accumulation", "steps"), [(4, 1, 4), (5, 2, 2), (2, 2, 1)])
def test_an_epoch_is_a_pass_and_what_makes_no_whole_step_is_left(batches: int, accumulation: int, steps: int) -> None:
    loader = LoaderBatches(Numbers(batches), TrainingConfig(epochs=3, batch_size=8, accumulation=accumulation), count=2)
    assert loader.steps_per_epoch == steps
    assert places(loader, 0) == list(range(steps * accumulation)) * 3


def test_the_rest_of_a_run_begins_where_it_stopped() -> None:
    loader = LoaderBatches(Numbers(5), TrainingConfig(epochs=3, batch_size=8, accumulation=2), count=2)
    assert places(loader, 3) == places(loader, 0)[6:]
    first: list[Tensor] = list(next(iter(islice(loader.rest(5), 1))))
    assert int(first[1].item()) == 2


def test_a_loader_shorter_than_a_step_is_refused() -> None:
    with pytest.raises(ConfigError, match="a step takes 4 batches of the loader, which has 3"):
        LoaderBatches(Numbers(3), TrainingConfig(epochs=3, batch_size=8, accumulation=4), count=2)


def test_a_batch_of_another_number_of_views_than_routes_is_refused() -> None:
    loader = LoaderBatches(Numbers(3), TrainingConfig(epochs=1, batch_size=8), count=3)
    with pytest.raises(ConfigError, match="the loader's batch has 2 views, and there are 3 routes"):
        next(loader.rest(0))


def test_a_loader_that_gives_less_than_it_says_ends_the_first_epoch() -> None:
    class Less(Numbers):
        def __len__(self) -> int:
            return 6

    batches = LoaderBatches(Less(4), TrainingConfig(epochs=3, batch_size=8, accumulation=1), count=2).rest(0)
    given = [next(batches) for _ in range(4)]
    assert len(given) == 4
    with pytest.raises(ConfigError, match="the loader says that it has 6 batches, and gave 4"):
        next(batches)
