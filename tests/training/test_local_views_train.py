"""Trainings with local views: what each part sees of them, what they cost, and what is refused."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import ssl_dc
from helpers.command_line import done, parsed, refused
from helpers.hand_made import AsItIs, Distance, Random, by_hand, sgd
from helpers.settings import TINY, as_options, config_of
from helpers.training import logged, trainer_of
from ssl_dc.config import BudgetConfig, TrainingConfig
from ssl_dc.errors import ConfigError, PluginError
from ssl_dc.fitted_recipe import Machine
from ssl_dc.gating.cost import CostModel, LayerCost, Trace
from ssl_dc.objectives.base import EncodedViews
from ssl_dc.routes import Route
from ssl_dc.training.trainer import Trainer
from ssl_dc.training_cost import PASSES, check_local_budget, local_cost, training_macs
from ssl_dc.training_plan.needs import drawn_bytes
from ssl_dc.training_plan.planning import views_in_words

ONE_LOCAL: dict[str, Any] = {**TINY, "data.image_size": 16, "views.global_count": 1, "views.local_size": 8}
"""A global and a local view, for an objective of two views."""
LOCAL_GATED: dict[str, Any] = {**ONE_LOCAL, "routes": ["dense", "gated"]}


def sides(images: Sequence[Tensor]) -> list[int]:
    return [view.shape[2] for view in images]


def test_an_objective_knows_global_views_by_their_size() -> None:
    large, small = torch.zeros(2, 3, 8, 8), torch.zeros(2, 3, 4, 4)
    for images, expected in (((large, large), 2), ((large, large, small, small), 2), ((large, small), 1)):
        assert EncodedViews(images, images, (Route.DENSE,) * len(images)).global_count == expected


@pytest.mark.parametrize("recipe", ["standard", "batched"])
def test_every_part_sees_each_view_at_its_own_size_and_the_budget_is_measured_on_a_global_one(
    recipe: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = trainer_of({**LOCAL_GATED, "views.name": recipe, "data.limit": 32, "training.epochs": 1})
    seen, measured, traces = list[EncodedViews](), list[int](), list[Trace]()
    trainer.learner.objective.register_forward_pre_hook(lambda _m, words: seen.append(words[0]))
    monkeypatch.setattr(trainer.budget, "after_step", lambda _e, images, *_: measured.append(images.shape[2]))
    losses = trainer.gating.losses
    monkeypatch.setattr(trainer.gating, "losses", lambda trace, *words: traces.append(trace) or losses(trace, *words))
    trainer.fit()
    assert [(sides(views.images), views.global_count) for views in seen] == [([16, 8], 1)] * 2
    assert measured == [16] * 2
    encoder = trainer.learner.encoder
    expected = encoder.cost_model(8)
    for trace in traces:
        assert trace.cost.dense_macs == expected.dense_macs < encoder.cost_model(16).dense_macs
        torch.testing.assert_close(trace.ratio().double(), expected.gated_macs(trace.masks) / expected.dense_macs)
    assert len(traces) == 2


def test_the_first_gated_global_view_is_the_one_that_the_budget_is_measured_on() -> None:
    trainer = trainer_of({**ONE_LOCAL, "views.global_count": 1})
    dense, gated = Route.DENSE, Route.GATED
    for sizes, routes, expected in (
        ((16, 16), (dense, gated), 1),
        ((16, 16), (gated, gated), 0),
        ((16, 16, 8), (dense, gated, gated), 1),
        ((16, 16, 8), (dense, dense, gated), 0),
    ):
        trainer.view_sizes = sizes
        assert trainer._measured_view(routes) == expected


@pytest.mark.parametrize("norm", ["separate", "shared"])
def test_running_statistics_are_those_of_global_views_as_evaluation_sees_images_of_their_size(norm: str) -> None:
    learner = trainer_of({**ONE_LOCAL, "norm.name": norm}).learner.train()
    state = {name: value.clone() for name, value in learner.state_dict().items()}
    torch.manual_seed(0)
    large, small = torch.randn(8, 3, 16, 16), torch.randn(8, 3, 8, 8)

    def statistics(images: Sequence[Tensor], *routes: Route) -> dict[str, Tensor]:
        learner.load_state_dict(state)
        for view, route in zip(images, routes, strict=True):
            learner.encoder(view, route)
        return kept()

    def kept() -> dict[str, Tensor]:
        names = [name for name, _ in learner.encoder.named_buffers() if "running" in name]
        return {name: learner.encoder.get_buffer(name).clone() for name in names}

    def of_step(*routes: Route) -> dict[str, Tensor]:
        learner.load_state_dict(state)
        learner([large, small], routes)
        return kept()

    gated, dense = Route.GATED, Route.DENSE
    torch.testing.assert_close(of_step(dense, dense), statistics([large], dense), rtol=0, atol=0)
    # the gated route has no global view to learn its statistics from
    torch.testing.assert_close(of_step(dense, gated), statistics([large, small], dense, gated), rtol=0, atol=0)
    assert {module.momentum for module in learner.modules() if isinstance(module, nn.BatchNorm2d)} == {0.1}


@pytest.mark.long
def test_the_command_line_trains_with_local_views_in_bf16(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    words = [
        *as_options({**TINY, "data.image_size": 16, "training.epochs": 1}),
        "--precision",
        "bf16",
        "--views",
        "batched",
    ]
    local = ["--views.local_size", "8", "--views.local_scale", "0.05,0.4", "--views.global_count", "1"]
    done("train", *words, *local, "--routes", "dense,gated", "--output", "run")
    assert all(0 < line["cost_ratio"] <= 1 for line in logged(tmp_path / "run"))
    assert ssl_dc.load("run").config.views.model_dump()["local_scale"] == (0.05, 0.4)


@pytest.mark.long
def test_the_plan_names_the_views_and_counts_each_at_its_own_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    document = parsed("train", *as_options({**TINY, "data.image_size": 16}), "--dry-run")
    assert document["views"] == "2 of 16 px: gated, dense"
    document = parsed("train", *as_options(ONE_LOCAL), "--routes", "dense,gated", "--dry-run")
    assert document["views"] == "1 global of 16 px: dense; 1 local of 8 px: gated"
    local, (small, large) = config_of(ONE_LOCAL), (config_of({**TINY, "data.image_size": side}) for side in (8, 16))
    assert training_macs(local) == (training_macs(small) + training_macs(large)) // 2
    assert training_macs(large) > PASSES * 2 * ssl_dc.Model.untrained(large).cost.dense_macs
    assert drawn_bytes(local, Machine(cores=1)) == 4 * 3 * (16**2 + 8**2) * 16
    many = {**ONE_LOCAL, "views.global_count": 2, "routes": ["gated", "dense", *["gated"] * 6]}
    assert views_in_words(config_of(many)) == "2 global of 16 px: gated, dense; 6 local of 8 px: all gated"


def test_local_views_that_do_not_fit_are_refused_in_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    small = as_options({**TINY, "data.image_size": 16})
    for words, said in (
        (["--views.local_size", "8"], "routes gated,dense: the first 2 views are global"),
        (["--views.local_size", "16", "--views.global_count", "1"], "local views of 16 px must be smaller"),
        (["--views.local_size", "8", "--routes", "gated,dense,gated"], "takes 2 views, not 3"),
        (["--views.local_size", "4"], "views.local_size = 4"),
    ):
        assert said in refused("train", *small, *words)
    assert not list(tmp_path.iterdir())


def test_a_network_of_one_size_is_refused_local_views_before_it_trains() -> None:
    class OneSize:
        def cost_model(self, size: int) -> CostModel:
            raise AssertionError(f"Input height ({size}) doesn't match model (16).")

    with pytest.raises(ConfigError, match=r"^local views of 8 px do not fit the network, .*: Input height \(8\) doesn't"):
        local_cost(OneSize(), 8)  # type: ignore[arg-type]  # no more of an encoder is needed


def test_a_budget_that_gated_local_views_cannot_meet_is_refused() -> None:
    cost = CostModel((LayerCost("stem", 10), LayerCost("hidden", 90, ("site",))), {"site": 4})
    check_local_budget(cost, 8, (Route.GATED,), (0.1, 0.5))
    check_local_budget(cost, 8, (Route.DENSE,), (0.05,))
    with pytest.raises(
        ConfigError, match=re.escape("budget.target = 0.05: a gated local view of 8 px costs at least 0.10000")
    ):
        check_local_budget(cost, 8, (Route.DENSE, Route.GATED), (0.05, 0.5))


def from_loader(sizes: Sequence[int], given: Sequence[int]) -> Trainer:
    """A trainer of three views whose loader gives views of some sizes, and that is told others."""
    whole, encoder = by_hand()
    return Trainer(
        encoder=encoder,
        objective=Distance(),
        gating=whole.gating,
        optimizer=sgd,
        loader=[[torch.rand(8, 3, side, side) for side in given]],
        image_size=4,
        view_sizes=sizes,
        training=TrainingConfig(epochs=1),
        budget=BudgetConfig(target=None),
        routes=(Route.DENSE,) * 3,
    )


def test_a_loader_may_give_local_views_if_it_says_their_sizes() -> None:
    trainer = from_loader((4, 4, 2), (4, 4, 2))
    trainer.fit()
    assert trainer.step == 1
    with pytest.raises(PluginError, match=r"the loader: each view of a batch must be floats \(N, 3, 2, 2\), not float32"):
        from_loader((4, 4, 2), (4, 4, 4)).fit()
    for sizes in ((4, 4), (2, 4, 4), (4, 2, 4)):
        with pytest.raises(ConfigError, match="expected a size for each of 3 routes"):
            from_loader(sizes, sizes)


def test_a_recipe_whose_local_views_have_another_size_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(AsItIs, "local_size", 2)
    trainer, _ = by_hand(gating=Random(), routes=(Route.GATED, Route.DENSE, Route.DENSE))
    with pytest.raises(PluginError, match=r"AsItIs: a view must be float32 \(3, 2, 2\), not float32 \(3, 4, 4\)"):
        trainer.fit()
