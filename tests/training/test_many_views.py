"""More views than two: a further one changes nothing of the first ones, and every view is drawn by its number alone."""

from __future__ import annotations

import pytest
import torch

from helpers.settings import SHORT, config_of
from ssl_dc.assemble import build_data_set, build_views
from ssl_dc.data.subsets import open_splits
from ssl_dc.training.batches import Batches, ViewBatches
from ssl_dc.training.device_batches import DeviceBatches
from ssl_dc.views.base import BatchedViews


def batches_of(recipe: str, count: int, **options: int) -> Batches:
    """The batches that the trainer would take, with this many views and further options of the recipe."""
    config = config_of(
        {**SHORT, "data.image_size": 16, "views.name": recipe} | {f"views.{k}": v for k, v in options.items()}
    )
    images, views = open_splits(build_data_set(config)).train, build_views(config)
    if isinstance(views, BatchedViews):
        return DeviceBatches(images, views, count, config.training, config.seed, torch.device("cpu"))
    return ViewBatches(images, views, config.training, config.seed, count)


@pytest.mark.parametrize("recipe", ["standard", "batched"])
def test_further_views_leave_the_first_two_as_they_are(recipe: str) -> None:
    two, four = (list(batches_of(recipe, count).rest(0)) for count in (2, 4))
    assert len(two) == len(four) == 2
    for few, many in zip(two, four, strict=True):
        assert (len(few), len(many)) == (2, 4)
        assert all(torch.equal(one, other) for one, other in zip(few, many, strict=False))
        assert not any(torch.equal(many[a], many[b]) for a in range(4) for b in range(a))


@pytest.mark.parametrize("recipe", ["standard", "batched"])
def test_local_views_leave_the_global_ones_as_they_are(recipe: str) -> None:
    two, five = list(batches_of(recipe, 2).rest(0)), list(batches_of(recipe, 5, local_size=8).rest(0))
    for whole, many in zip(two, five, strict=True):
        assert all(torch.equal(one, other) for one, other in zip(whole, many, strict=False))
        assert [view.shape for view in many] == [(16, 3, 16, 16)] * 2 + [(16, 3, 8, 8)] * 3
        assert not any(torch.equal(many[a], many[b]) for a in range(2, 5) for b in range(2, a))
