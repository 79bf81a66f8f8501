"""The contract of parts that are composed by hand, which no registry knows."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from helpers.hand_made import Distance, by_hand, sgd
from ssl_dc.config import BudgetConfig, TrainingConfig
from ssl_dc.errors import ConfigError, PartError, PluginError
from ssl_dc.objectives.base import EncodedViews, Objective, ObjectiveOutput
from ssl_dc.routes import Route
from ssl_dc.training.trainer import Trainer


class Detached(Distance):
    def forward(self, views: EncodedViews) -> ObjectiveOutput:
        return super().forward(views._replace(features=[features.detach() for features in views.features]))


class Raises(Distance):
    def forward(self, views: EncodedViews) -> ObjectiveOutput:  # noqa: ARG002
        raise LookupError("by hand")


def test_a_part_without_a_record_is_called_by_its_class() -> None:
    trainer, _ = by_hand(Detached())
    with pytest.raises(PluginError, match=r"^step 1: the objective Detached: none of its loss terms has a gradient"):
        trainer.fit()
    trainer, _ = by_hand(Raises())
    with pytest.raises(
        PartError, match=r"^step 1: the objective Raises raised LookupError: by hand \(.*, in forward\)$"
    ) as caught:
        trainer.fit()
    assert isinstance(caught.value.__cause__, LookupError)
    assert caught.value.exit_status == 1


@pytest.mark.parametrize(
    ("batch", "said"),
    [
        ([torch.zeros(8, 3, 4, 4), torch.zeros(8, 3, 4, 6)], "must be floats (N, 3, 4, 4), not float32 (8, 3, 4, 6)"),
        ([torch.zeros(8, 3, 4, 4), torch.zeros(7, 3, 4, 4)], "must be floats (N, 3, 4, 4), not float32 (7, 3, 4, 4)"),
        ([torch.zeros(8, 3, 4, 4).byte()] * 2, "must be floats (N, 3, 4, 4), not uint8 (8, 3, 4, 4)"),
        ([torch.zeros(3, 4, 4)] * 2, "must be floats (N, 3, 4, 4), not float32 (3, 4, 4)"),
        ([[1.0], [2.0]], "must be floats (N, 3, 4, 4), not a list of 1"),
        (torch.zeros(2, 3, 4, 4), "a batch must be 2 views, not float32 (2, 3, 4, 4)"),
    ],
    ids=["wide", "fewer", "bytes", "one", "lists", "tensor"],
)
def test_a_loader_that_gives_other_views_is_told_at_the_first_step(batch: Any, said: str) -> None:
    with pytest.raises(PluginError) as caught:
        from_loader(Distance(), batch).fit()
    assert str(caught.value).startswith("step 1: the loader: ")
    assert said in str(caught.value)


def from_loader(objective: Objective, batch: Any) -> Trainer:
    """A trainer whose only batch is this one."""
    whole, encoder = by_hand()
    return Trainer(
        encoder=encoder,
        objective=objective,
        gating=whole.gating,
        optimizer=sgd,
        loader=[batch],
        image_size=4,
        training=TrainingConfig(epochs=1),
        budget=BudgetConfig(target=None),
        routes=(Route.DENSE, Route.DENSE),
    )


def test_fewer_images_at_once_than_the_objective_needs_are_refused_before_the_first_step() -> None:
    class OfMany(Distance):
        least_batch = 9

    said = r"^the objective OfMany takes 9 images or more at once, and gets 8: raise training\.batch_size"
    with pytest.raises(ConfigError, match=said):
        by_hand(OfMany())
    trainer = from_loader(OfMany(), [torch.zeros(8, 3, 4, 4)] * 2)
    before = {name: value.clone() for name, value in trainer.learner.state_dict().items()}
    with pytest.raises(ConfigError, match=said):
        trainer.fit()
    assert all(torch.equal(value, before[name]) for name, value in trainer.learner.state_dict().items())
    OfMany.least_batch = 8
    by_hand(OfMany())
