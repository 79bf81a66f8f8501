"""Trainings composed by hand, from torch objects that no plugin brings."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

import ssl_dc
from helpers.hand_made import AsItIs, Distance, Mean, Random, by_hand, some_images
from helpers.settings import SHORT
from helpers.training import Told, logged
from ssl_dc.encoders.base import Encoder
from ssl_dc.errors import ConfigError, PartError
from ssl_dc.gating.base import gates_of
from ssl_dc.gating.dgnet import DGNet
from ssl_dc.gating.options import DGNetOptions
from ssl_dc.routes import Route


def test_objects_composed_by_hand_train_without_config_folder_or_checkpoints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    objective, gating = Distance(), Random()
    trainer, encoder = by_hand(objective, gating, epochs=3, batch_size=4)
    told = Told()
    trainer.fit(watchers=[told])
    assert objective.bound_to == (encoder,)
    assert objective.progress == pytest.approx([step / 6 for step in range(1, 7)])
    assert set(objective.routes) == {(Route.GATED, Route.DENSE)}
    assert [metrics.step for metrics in told.metrics] == list(range(1, 7))
    assert not told.messages
    gate = gates_of(encoder)[0]
    assert not torch.equal(gate.get_parameter("numbers"), torch.tensor([0.5, -0.5]))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("count", [2, 3, 5])
def test_a_step_of_any_number_of_views_is_the_one_computed_by_hand(count: int) -> None:
    trainer, encoder = by_hand(routes=(Route.DENSE,) * count)
    reference = Mean()
    trainer.fit()
    means = torch.stack([AsItIs().view(some_images().image(i), 0).mean(dim=(1, 2)) for i in range(8)])
    features = [reference.linear((1 + number) * means) for number in range(count)]
    (3 * torch.stack([(one - other).square().mean() for one, other in pairwise(features)]).sum()).backward()
    assert reference.linear.weight.grad is not None
    expected = reference.linear.weight - 0.1 * reference.linear.weight.grad
    assert torch.allclose(encoder.backbone(Route.DENSE).get_parameter("linear.weight"), expected, atol=1e-6)


def test_three_views_train_by_their_routes_and_the_gated_ones_share_the_gating_loss() -> None:
    objective = Distance()
    trainer, _ = by_hand(objective, Random(), (Route.GATED, Route.DENSE, Route.GATED), epochs=2)
    told = Told()
    trainer.fit(watchers=[told])
    assert set(objective.routes) == {(Route.GATED, Route.DENSE, Route.GATED)}
    # the gates of Random do not look at the image, so that both gated views have one loss, whose mean is the term
    (ratio, *_), (rate, *_) = told.values("cost_ratio"), told.values("terms/rate")
    assert rate == pytest.approx((ratio - 0.9) ** 2)


def test_an_objective_of_two_views_is_refused_more() -> None:
    class OfTwo(Distance):
        views = 2

    with pytest.raises(ConfigError, match="routes dense,dense,dense: the objective OfTwo takes 2 views, not 3"):
        by_hand(OfTwo(), routes=(Route.DENSE,) * 3)


def test_a_config_of_more_views_than_the_objective_takes_is_refused_before_anything_is_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ssl_dc.training.from_config.build_network", lambda _config: pytest.fail("built"))
    with pytest.raises(
        ConfigError, match=r"^routes dense,gated,dense: objective 'vicreg' of ssl-dc \S+ takes 2 views, not 3$"
    ):
        ssl_dc.train({**SHORT, "routes": ["dense", "gated", "dense"]}, output=tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("accumulation", [2, 4])
def test_accumulating_a_batch_in_parts_gives_the_same_step(accumulation: int) -> None:
    whole, one = by_hand(epochs=2)
    parts, other = by_hand(epochs=2, accumulation=accumulation)
    assert whole.total_steps == parts.total_steps == 2
    start = Mean().linear.weight
    whole.fit()
    parts.fit()
    assert not torch.equal(one.state_dict()["only.linear.weight"], start)
    for name, value in one.state_dict().items():
        assert torch.allclose(other.state_dict()[name], value, atol=1e-6), name


@pytest.mark.long
def test_accumulation_calls_the_optimiser_once_a_batch(tmp_path: Path) -> None:
    ssl_dc.train({**SHORT, "training.accumulation": 4}, output=tmp_path / "run")
    assert [line["step"] for line in logged(tmp_path / "run")] == [1, 2]


def test_an_objective_that_copies_the_encoder_gets_its_final_batch_norms(monkeypatch: pytest.MonkeyPatch) -> None:
    class Bound(Exception):  # noqa: N818  # ends the test where a GPU would be needed
        pass

    class Copying(Distance):
        def bind(self, encoder: Encoder) -> None:
            raise Bound([type(m).__name__ for m in encoder.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)])

    gpus = SimpleNamespace(num_processes=2, device=torch.device("cuda"))
    monkeypatch.setattr("ssl_dc.training.trainer.make_accelerator", lambda _precision: gpus)
    with pytest.raises(PartError) as caught:
        by_hand(objective=Copying(), gating=DGNet(DGNetOptions()))
    bound = caught.value.__cause__
    assert isinstance(bound, Bound)
    assert bound.args[0] == ["SyncBatchNorm"]
