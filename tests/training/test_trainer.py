# ruff: noqa: ARG002  # the parts composed by hand have the arguments of their interfaces
"""The training loop: same runs, resumed runs, budgets, warm-up of gates, composition by hand, several processes."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL.Image import Image
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.optim import SGD, Optimizer

import ssl_dc
from ssl_dc.assemble import build_network, build_objective
from ssl_dc.backbones.base import Backbone, GatePoint, Masks
from ssl_dc.cli import main
from ssl_dc.config import BudgetConfig, TrainingConfig, resolve, uniform_layer
from ssl_dc.data.digits import ArrayImages
from ssl_dc.encoders.base import Encoder
from ssl_dc.errors import ConfigError, DataError, RunError
from ssl_dc.gating.base import Gate, GateFactory, GatingScheme, gates_of, no_gates
from ssl_dc.gating.cost import Trace
from ssl_dc.gating.dgnet import DGNet
from ssl_dc.gating.none import NoGating
from ssl_dc.gating.options import DGNetOptions, NoGatingOptions
from ssl_dc.gating.sites import GateSite, Granularity
from ssl_dc.model import Model
from ssl_dc.objectives.base import EncodedViews, Objective, ObjectiveOutput
from ssl_dc.optimizers.base import ParameterGroup
from ssl_dc.routes import Route
from ssl_dc.trackers.base import StepMetrics, Watcher
from ssl_dc.training.checkpoint import CheckpointStore
from ssl_dc.training.learner import Learner
from ssl_dc.training.trainer import Trainer, parameter_groups
from ssl_dc.views.base import Views

TINY: dict[str, Any] = {
    "data.limit": 64,
    "data.test_limit": 40,
    "data.image_size": 8,
    "backbone.width": 4,
    "objective.expander_width": 16,
    "training.batch_size": 32,
    "training.epochs": 2,
    "training.workers": 0,
    "training.log_every": 1,
}
LONGER = {**TINY, "training.batch_size": 16, "training.epochs": 4, "training.keep_checkpoints": 50}
"""Four epochs of four steps."""


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def weights(folder: Path, step: int, key: str = "") -> dict[str, Tensor]:
    """The tensors of a resume point whose names contain a key."""
    learner = load_file(folder / "checkpoints" / f"step-{step:08d}" / "learner.safetensors")
    return {name: tensor for name, tensor in learner.items() if key in name}


def same_bytes(one: Path, two: Path, *names: str) -> None:
    for name in names or ("metrics.jsonl", "model.safetensors", "result.json"):
        assert (one / name).read_bytes() == (two / name).read_bytes(), name


def strict(line: str) -> Any:
    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is not JSON")

    return json.loads(line, parse_constant=refuse)


# the same run twice


@pytest.mark.parametrize(
    "settings",
    [{}, {"optimizer.name": "lars", "gating.name": "convnet_aig", "objective.name": "barlow_twins"}],
    ids=["vicreg", "barlow"],
)
def test_two_identical_runs_are_identical(tmp_path: Path, settings: dict[str, Any]) -> None:
    for name in ("one", "two"):
        torch.manual_seed(len(name))  # what happened before in the process does not matter
        np.random.seed(len(name))
        ssl_dc.train({**TINY, **settings, "objective.expander_width": 16}, output=tmp_path / name)
        torch.rand(3)
    same_bytes(tmp_path / "one", tmp_path / "two")


def test_another_seed_is_another_run(tmp_path: Path) -> None:
    ssl_dc.train(TINY, output=tmp_path / "one")
    ssl_dc.train({**TINY, "seed": 1}, output=tmp_path / "two")
    assert lines(tmp_path / "one")[0]["loss"] != lines(tmp_path / "two")[0]["loss"]


def test_the_number_of_workers_does_not_change_what_is_computed(tmp_path: Path) -> None:
    ssl_dc.train({**TINY, "training.epochs": 1}, output=tmp_path / "none")
    ssl_dc.train({**TINY, "training.epochs": 1, "training.workers": 2}, output=tmp_path / "two")
    same_bytes(tmp_path / "none", tmp_path / "two", "metrics.jsonl", "model.safetensors")


@pytest.mark.parametrize(("optimizer", "peak"), [("adamw", 2e-3), ("lars", 0.3 * 32 / 256)])
def test_the_learning_rate_of_each_step_is_the_schedules(tmp_path: Path, optimizer: str, peak: float) -> None:
    ssl_dc.train({**TINY, "optimizer.name": optimizer, "training.warmup_share": 0.5}, output=tmp_path / "run")
    shares = [0.01, 0.505, 1.0, 0.5]
    assert [line["lr"] for line in lines(tmp_path / "run")] == pytest.approx([peak * share for share in shares])


def test_logging_less_often_changes_only_what_is_logged(tmp_path: Path) -> None:
    ssl_dc.train(TINY, output=tmp_path / "all")
    ssl_dc.train({**TINY, "training.log_every": 3}, output=tmp_path / "some")
    assert [line["step"] for line in lines(tmp_path / "some")] == [3, 4]
    assert lines(tmp_path / "some") == [line for line in lines(tmp_path / "all") if line["step"] >= 3]
    same_bytes(tmp_path / "all", tmp_path / "some", "model.safetensors")


# resuming


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trainer") / "whole"
    ssl_dc.train({**LONGER, "training.checkpoint_every": 3}, output=folder)
    return folder


KILLED = """
import json, os, signal, sys
import ssl_dc
from ssl_dc import api

class Killer(ssl_dc.trackers.base.Watcher):
    def on_step(self, metrics):
        if metrics.step == 11:
            os.kill(os.getpid(), signal.SIGKILL)

ssl_dc.train(json.loads(sys.argv[1]), output=sys.argv[2], watchers=[Killer()])
"""


def test_a_killed_run_goes_on_as_if_it_had_never_stopped(tmp_path: Path, uninterrupted: Path) -> None:
    settings = {**LONGER, "training.checkpoint_every": 3}
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, json.dumps(settings), str(tmp_path / "run")],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())},
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    saved = sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir())
    assert saved[-1] == "step-00000009"
    assert [line["step"] for line in lines(tmp_path / "run")] == list(range(1, 12)), "lines after the resume point"
    assert not (tmp_path / "run" / "model.safetensors").exists()
    with (tmp_path / "run" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 12, "epo')  # as if it had been killed in the middle of a line

    result = CliRunner().invoke(main, ["train", "--resume", str(tmp_path / "run"), "--json"])
    assert result.exit_code == 0, result.stderr
    assert "training from step 9 to 16" in result.stderr
    same_bytes(tmp_path / "run", uninterrupted)


@pytest.mark.parametrize("step", [0, 1, 3, 4, 6, 15])
def test_a_run_goes_on_from_any_resume_point(tmp_path: Path, uninterrupted: Path, step: int) -> None:
    folder = tmp_path / "run"
    shutil.copytree(uninterrupted, folder)
    for name in ("model.safetensors", "result.json"):
        (folder / name).unlink()
    points = sorted((folder / "checkpoints").iterdir())
    assert [int(point.name.removeprefix("step-")) for point in points] == [3, 4, 6, 8, 9, 12, 15, 16]
    for point in points:
        if int(point.name.removeprefix("step-")) > step:
            shutil.rmtree(point)
    ssl_dc.resume(folder)
    same_bytes(folder, uninterrupted)


class Listener(Watcher):
    """Remembers what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, Any]] = []

    def on_start(self, step: int, total_steps: int) -> None:
        self.told.append(("start", step))

    def on_step(self, metrics: StepMetrics) -> None:
        self.told.append(("step", metrics.step))

    def on_checkpoint(self, step: int) -> None:
        self.told.append(("checkpoint", step))

    def on_message(self, text: str) -> None:
        self.told.append(("message", text))

    def on_end(self) -> None:
        self.told.append(("end", None))


def test_a_damaged_resume_point_is_told_and_the_one_before_taken(tmp_path: Path, uninterrupted: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(uninterrupted, folder)
    path = folder / "checkpoints" / "step-00000016" / "learner.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    listener = Listener()
    ssl_dc.resume(folder, watchers=[listener])
    (message,) = [text for event, text in listener.told if event == "message"]
    assert "step-00000016" in message
    assert ("start", 15) in listener.told
    same_bytes(folder, uninterrupted)


def test_watchers_are_told_everything_in_order(tmp_path: Path) -> None:
    listener = Listener()
    ssl_dc.train({**TINY, "training.checkpoint_every": 3}, output=tmp_path / "run", watchers=[listener])
    assert listener.told == [
        ("start", 0),
        ("step", 1),
        ("step", 2),
        ("checkpoint", 2),
        ("step", 3),
        ("checkpoint", 3),
        ("step", 4),
        ("checkpoint", 4),
        ("end", None),
    ]


# gates, warm-up and budget


@pytest.mark.parametrize("gating", ["dgnet", "convnet_aig"])
def test_gates_are_left_alone_during_their_warm_up(tmp_path: Path, gating: str) -> None:
    folder = tmp_path / "run"
    ssl_dc.train({**TINY, "gating.name": gating, "training.gate_warmup": 1, "norm.name": "separate"}, output=folder)
    start = {
        f"encoder.{name}": value for name, value in Model.untrained(ssl_dc.load(folder).config).encoder.state_dict().items()
    }
    after_warmup, after_all = weights(folder, 2), weights(folder, 4)
    gates = [name for name in after_warmup if ".gate." in name]
    others = [name for name in after_warmup if name.endswith("conv1.weight") and "encoder" in name]
    gated_norms = [name for name in after_warmup if ".norm1.gated." in name]
    assert gates
    assert others
    assert gated_norms
    for name in (*gates, *gated_norms):
        assert torch.equal(after_warmup[name], start[name]), name
    assert all(not torch.equal(after_warmup[name], start[name]) for name in others)
    assert any(not torch.equal(after_all[name], start[name]) for name in gates if name.endswith("weight"))
    warm, trained = lines(folder)[:2], lines(folder)[2:]
    for line in warm:
        assert {name for name in line if name.startswith("terms/")} == {
            "terms/invariance",
            "terms/variance",
            "terms/covariance",
        }
        assert "cost_ratio" not in line
    for line in trained:
        assert len([name for name in line if name.startswith("terms/")]) > 3
        assert 0 < line["cost_ratio"] < 2


def test_every_line_of_metrics_is_json_also_just_after_the_warm_up_of_gates(tmp_path: Path) -> None:
    ssl_dc.train({**TINY, "training.gate_warmup": 1}, output=tmp_path / "run")
    for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines():
        strict(line)


@pytest.mark.parametrize("budget", [0.2, 0.5])
@pytest.mark.parametrize("width", [8, 16])
def test_the_adaptive_control_meets_the_budget_image_by_image(tmp_path: Path, budget: float, width: int) -> None:
    run = ssl_dc.train(
        {
            **TINY,
            "data.limit": 256,
            "data.test_limit": None,
            "backbone.width": width,
            "training.epochs": 4,
            "budget.target": budget,
        },
        output=tmp_path / "run",
    )
    assert lines(run.folder)[-1]["step"] == 32
    assert run.outcome.measured_on == "360 held-out images"
    assert run.outcome.routes[Route.GATED].ratio == pytest.approx(budget, abs=0.02)
    images = torch.randn(64, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    masks = torch.cat(list(run.model.gated(images).masks.values()), dim=1)
    assert len(masks.unique(dim=0)) > 8, "gates must decide for each image"
    thresholds = {round(float(gate.thresholds.mean()), 6) for gate in gates_of(run.model.encoder)}
    assert len(thresholds) == 1
    assert thresholds != {0.0}


def test_the_adaptive_control_looks_at_what_evaluation_pays(tmp_path: Path) -> None:
    ssl_dc.train(LONGER, output=tmp_path / "run")
    found = lines(tmp_path / "run")
    assert len({line["evaluated_cost_ratio"] for line in found}) > 1
    thresholds = [line["gate_threshold"] for line in found]
    looks = [(i, line) for i, line in enumerate(found) if i and line["gate_threshold"] != found[i - 1]["gate_threshold"]]
    assert looks
    for i, line in looks:
        rose = thresholds[i] > thresholds[i - 1]
        assert rose == (line["evaluated_cost_ratio"] > 0.3)


def test_the_papers_penalty_leaves_the_thresholds_at_nothing(tmp_path: Path) -> None:
    run = ssl_dc.train({**TINY, "budget.control": "penalty"}, output=tmp_path / "run")
    assert not any(gate.thresholds.any() for gate in gates_of(run.model.encoder))
    assert "gate_threshold" not in lines(run.folder)[-1]
    assert "cost_ratio" in lines(run.folder)[-1]


def test_the_dense_baseline_has_neither_gates_nor_gating_terms(tmp_path: Path) -> None:
    run = ssl_dc.train({**TINY, "gating.name": "none"}, output=tmp_path / "run")
    assert set(run.outcome.routes) == {Route.DENSE}
    assert run.outcome.budget is None
    names = {name for line in lines(run.folder) for name in line}
    assert "cost_ratio" not in names
    assert {name for name in names if name.startswith("terms/")} == {
        "terms/invariance",
        "terms/variance",
        "terms/covariance",
    }


def test_gating_loss_of_two_gated_views_is_their_mean(tmp_path: Path) -> None:
    ssl_dc.train({**TINY, "routes": ["gated", "gated"], "gating.bound": 0.0}, output=tmp_path / "run")
    for line in lines(tmp_path / "run"):
        # the mean of 5 (a - t)^2 and 5 (b - t)^2 is at least 5 ((a + b) / 2 - t)^2, and near it when a is near b
        least = 5 * (line["cost_ratio"] - 0.3) ** 2
        assert least <= line["terms/budget"] * (1 + 1e-4) <= least + 0.05


def test_gates_are_a_group_of_their_own_without_weight_decay() -> None:
    config = resolve([uniform_layer(TINY, "test")]).config
    network = build_network(config)
    learner = Learner(network.encoder, build_objective(config, network.encoder.feature_dim))
    decayed, gates = parameter_groups(learner)
    assert (decayed.decay, gates.decay) == (True, False)
    of_gates = {id(p) for gate in gates_of(learner) for p in gate.parameters()}
    assert {id(p) for p in gates.parameters} == of_gates
    everything = [id(p) for group in (decayed, gates) for p in group.parameters]
    assert sorted(everything) == sorted(id(p) for p in learner.parameters())
    for parameter in learner.objective.parameters():
        parameter.requires_grad_(False)
    assert not {id(p) for group in parameter_groups(learner) for p in group.parameters} & {
        id(p) for p in learner.objective.parameters()
    }
    bare = resolve([uniform_layer({**TINY, "gating.name": "none"}, "test")]).config
    groups = parameter_groups(build_network(bare).encoder)
    assert [group.decay for group in groups] == [True]


# composed by hand, from torch objects that no plugin brings


class Mean(Backbone):
    """One linear map of the mean colour, without batch norm: the loss of a batch is the mean of those of its parts."""

    feature_dim = 2

    def __init__(self, gate_factory: GateFactory = no_gates) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 2)
        self.point = GatePoint(GateSite("linear.out", Granularity.CHANNEL, 3, 2, ("linear",)), gate_factory)
        with torch.no_grad():
            self.linear.weight.copy_(torch.tensor([[0.5, -0.25, 1.0], [0.25, 0.75, -0.5]]))
            self.linear.bias.zero_()

    def forward(self, images: Tensor, route: Route) -> tuple[Tensor, Masks]:
        masks: Masks = {}
        mean = images.mean(dim=(2, 3))
        return self.point(self.linear(mean)[:, :, None, None], images, route, masks).flatten(1), masks


class One(Encoder):
    """A single backbone."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.only = backbone

    def backbone(self, route: Route) -> Backbone:
        return self.only


class Distance(Objective):
    """Squared distance of each view's features to those of the next, and optionally not a number from some step on."""

    views = None

    def __init__(self, broken_from: int | None = None) -> None:
        super().__init__()
        self.broken_from = broken_from
        self.steps = 0
        self.progress: list[float] = []
        self.bound_to: tuple[Encoder, ...] = ()  # a tuple, so that it is not part of the module
        self.routes: list[tuple[Route, ...]] = []

    @property
    def weights(self) -> Mapping[str, float]:
        return {"distance": 3.0}

    def bind(self, encoder: Encoder) -> None:
        self.bound_to = (encoder,)

    def forward(self, views: EncodedViews) -> ObjectiveOutput:
        self.routes.append(tuple(views.routes))
        term = torch.stack([(one - other).square().mean() for one, other in pairwise(views.features)]).sum()
        if self.broken_from is not None and self.steps >= self.broken_from:
            term = term * math.nan
        return ObjectiveOutput({"distance": term}, list(views.features))

    def after_step(self, encoder: Encoder, progress: float) -> None:
        self.steps += 1
        self.progress.append(progress)


class Random(GatingScheme):
    """Opens each channel where a learned number for it is above 0."""

    granularity = Granularity.CHANNEL

    class Numbers(Gate):
        """The numbers."""

        macs = 7

        def __init__(self, site: GateSite) -> None:
            super().__init__(site)
            self.numbers = nn.Parameter(torch.tensor([0.5, -0.5])[: site.channels])

        def forward(self, x: Tensor, threshold: Tensor) -> Tensor:
            hard = (self.numbers >= threshold).to(x.dtype)
            mask = hard + self.numbers - self.numbers.detach()
            return mask.expand(x.shape[0], -1)

    def gate(self, site: GateSite) -> Gate:
        return self.Numbers(site)

    def losses(self, trace: Trace, budget: float, progress: float) -> dict[str, Tensor]:
        return {"rate": (trace.ratio().mean() - budget).square()}


class AsItIs(Views):
    """The first view is the image. The second one is twice as bright, the third three times, and so on."""

    def view(self, image: Image, number: int) -> Tensor:
        return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255 * (1 + number)


def some_images(count: int = 8) -> ArrayImages:
    return ArrayImages(np.random.default_rng(0).integers(0, 255, (count, 4, 4, 3), dtype=np.uint8), None)


def sgd(groups: Sequence[ParameterGroup], lr: float = 0.1) -> Optimizer:
    return SGD([{"params": group.parameters} for group in groups], lr=lr)


def by_hand(
    objective: Objective | None = None,
    gating: GatingScheme | None = None,
    routes: Sequence[Route] | None = None,
    **training: Any,
) -> tuple[Trainer, Encoder]:
    settings = {"epochs": 1, "batch_size": 8, "workers": 0, "warmup_share": 0.0, "log_every": 1, **training}
    encoder = One(Mean(gating.make_gate if gating else no_gates))
    return Trainer(
        encoder=encoder,
        objective=objective or Distance(),
        gating=gating or NoGating(NoGatingOptions()),
        optimizer=sgd,
        images=some_images(),
        views=AsItIs(),
        image_size=4,
        training=TrainingConfig(**settings),
        budget=BudgetConfig(target=0.9 if gating else None),
        routes=routes or ((Route.GATED, Route.DENSE) if gating else (Route.DENSE, Route.DENSE)),
    ), encoder


def test_a_step_of_objects_composed_by_hand_is_the_one_computed_by_hand() -> None:
    trainer, encoder = by_hand()
    reference = Mean()
    trainer.fit()
    means = torch.stack([AsItIs().view(some_images().image(i), 0).mean(dim=(1, 2)) for i in range(8)])
    loss = 3 * (reference.linear(means) - reference.linear(2 * means)).square().mean()
    loss.backward()
    assert reference.linear.weight.grad is not None
    expected = reference.linear.weight - 0.1 * reference.linear.weight.grad
    assert torch.allclose(encoder.backbone(Route.DENSE).get_parameter("linear.weight"), expected, atol=1e-6)


def test_objects_composed_by_hand_train_without_config_folder_or_checkpoints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    objective, gating = Distance(), Random()
    trainer, encoder = by_hand(objective, gating, epochs=3, batch_size=4)
    listener = Listener()
    trainer.fit(watchers=[listener])
    assert objective.bound_to == (encoder,)
    assert objective.progress == pytest.approx([step / 6 for step in range(1, 7)])
    assert set(objective.routes) == {(Route.GATED, Route.DENSE)}
    assert [event for event, _ in listener.told] == ["start", *["step"] * 6, "end"]
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


def test_three_views_train_by_their_routes_and_the_gated_ones_share_the_gating_loss(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    objective = Distance()
    trainer, _ = by_hand(objective, Random(), (Route.GATED, Route.DENSE, Route.GATED), epochs=2)
    told: list[StepMetrics] = []
    watcher = Watcher()
    monkeypatch.setattr(watcher, "on_step", told.append)
    trainer.watchers = [watcher]
    trainer.fit()
    assert set(objective.routes) == {(Route.GATED, Route.DENSE, Route.GATED)}
    # the gates of Random do not look at the image, so that both gated views have one loss, whose mean is the term
    ratio = told[0].values["cost_ratio"]
    assert told[0].values["terms/rate"] == pytest.approx((ratio - 0.9) ** 2)


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
        ssl_dc.train({**TINY, "routes": ["dense", "gated", "dense"]}, output=tmp_path / "run")
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


def test_accumulation_calls_the_optimiser_once_a_batch(tmp_path: Path) -> None:
    ssl_dc.train({**TINY, "training.accumulation": 4}, output=tmp_path / "run")
    assert [line["step"] for line in lines(tmp_path / "run")] == [1, 2, 3, 4]


def test_a_loss_that_is_not_finite_names_step_and_term_and_keeps_the_resume_point(tmp_path: Path) -> None:
    trainer, _ = by_hand(Distance(broken_from=2), epochs=3, batch_size=4, checkpoint_every=1)
    listener = Listener()
    with pytest.raises(RunError, match=r"step 3: the loss is nan; not finite: distance\.") as caught:
        trainer.fit(watchers=[listener], checkpoints=CheckpointStore(tmp_path, keep=1))
    assert caught.value.exit_status == 1
    assert "step-00000002" in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000002"]
    assert listener.told[-1] == ("end", None)


class NotFinite(Random):
    """A gating scheme whose loss is infinite."""

    def losses(self, trace: Trace, budget: float, progress: float) -> dict[str, Tensor]:
        return {"rate": trace.ratio().mean() * math.inf}


def test_a_gating_term_that_is_not_finite_is_named() -> None:
    trainer, _ = by_hand(gating=NotFinite())
    with pytest.raises(RunError, match=r"step 1: the loss is inf; not finite: rate"):
        trainer.fit()


def test_a_full_disk_ends_training_with_a_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, os.strerror(28))

    trainer, _ = by_hand()
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunError, match=r"learner\.safetensors.*MiB.*No space left"):
        trainer.fit(checkpoints=CheckpointStore(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_a_batch_larger_than_the_data_is_refused_before_training() -> None:
    with pytest.raises(ConfigError, match="batch_size"):
        by_hand(batch_size=9)


class Unreadable(ArrayImages):
    """Images of which one cannot be read."""

    def image(self, index: int) -> Any:
        if index == 3:
            raise DataError("image cats/3.png cannot be read: truncated.")
        return super().image(index)


@pytest.mark.parametrize("workers", [0, 1])
def test_an_image_that_cannot_be_read_ends_training_with_its_name(workers: int) -> None:
    trainer, _ = by_hand(workers=workers)
    trainer.batches.view_sets.images = Unreadable(np.zeros((8, 4, 4, 3), np.uint8), None)
    with pytest.raises(DataError) as caught:
        trainer.fit()
    assert str(caught.value) == "image cats/3.png cannot be read: truncated."


# several processes

TWO_PROCESSES = """
import json, os, sys
import ssl_dc
from ssl_dc.assemble import build_data_set, build_network, build_objective, build_optimizer, build_views
from ssl_dc.config import resolve, uniform_layer
from ssl_dc.data.subsets import open_splits
from ssl_dc.objectives.vicreg import VICReg
from ssl_dc.training.trainer import Trainer
from functools import partial

said = []

class Recording(VICReg):
    def forward(self, views):
        output = super().forward(views)
        said.append({name: term.item() for name, term in output.terms.items()})
        return output

for name, settings in json.loads(sys.argv[1]).items():
    said.clear()
    config = resolve([uniform_layer(settings, "test")]).config
    network = build_network(config)
    trainer = Trainer(
        encoder=network.encoder,
        objective=Recording(config.objective, network.encoder.feature_dim),
        gating=network.gating,
        optimizer=partial(build_optimizer, config),
        images=open_splits(build_data_set(config)).train,
        views=build_views(config),
        image_size=config.data.image_size,
        training=config.training,
        budget=config.budget,
        routes=config.routes,
    )
    error = None
    try:
        trainer.fit()
    except Exception as caught:
        error = f"{type(caught).__name__}: {caught}"[:200]
    total = sum(float(p.double().sum()) for p in network.encoder.parameters())
    report = {"world": trainer.accelerator.num_processes, "error": error, "terms": said, "weights": total}
    with open(os.path.join(sys.argv[2], f"{name}-{os.environ['RANK']}.json"), "w") as file:
        json.dump(report, file)

if len(sys.argv) > 3:
    run = ssl_dc.train(settings, output=sys.argv[3])
"""

TWO: dict[str, dict[str, Any]] = {
    "gated-dense": {},
    "shared-norm": {"norm.name": "shared"},
    "double": {"encoder.name": "double"},
    "accumulated": {"training.accumulation": 2},
    "no-gates": {"gating.name": "none"},
    "gates-warming-up": {"training.gate_warmup": 1},
}


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What both processes of a launch say of each of several short runs."""
    folder = tmp_path_factory.mktemp("two")
    (folder / "script.py").write_text(TWO_PROCESSES)
    settings = {name: {**TINY, "objective.expander_width": 16, **extra} for name, extra in TWO.items()}
    launched = subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"),
            *(str(folder / "script.py"), json.dumps(settings), str(folder), str(folder / "run")),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    (folder / "log").write_text(f"{launched.returncode}\n{launched.stderr}")
    return folder


@pytest.mark.parametrize("name", TWO)
def test_two_processes_train_together(two_processes: Path, name: str) -> None:
    reports = [two_processes / f"{name}-{rank}.json" for rank in (0, 1)]
    assert all(report.exists() for report in reports), (two_processes / "log").read_text()[-2000:]
    one, two = (json.loads(report.read_text()) for report in reports)
    assert one["world"] == two["world"] == 2
    assert one["error"] is None
    assert two["error"] is None
    parts = 2 if name == "accumulated" else 1
    assert len(one["terms"]) == 4 * parts
    for ours, theirs in zip(one["terms"], two["terms"], strict=True):
        assert ours == pytest.approx(theirs, rel=1e-6)
    assert one["weights"] == pytest.approx(two["weights"], rel=1e-9)


def test_an_objective_that_copies_the_encoder_gets_its_final_batch_norms(monkeypatch: pytest.MonkeyPatch) -> None:
    class Bound(Exception):  # noqa: N818  # ends the test where a GPU would be needed
        pass

    class Copying(Distance):
        def bind(self, encoder: Encoder) -> None:
            raise Bound([type(m).__name__ for m in encoder.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)])

    gpus = SimpleNamespace(num_processes=2, device=torch.device("cuda"))
    monkeypatch.setattr("ssl_dc.training.trainer.make_accelerator", lambda _precision: gpus)
    with pytest.raises(Bound) as bound:
        by_hand(objective=Copying(), gating=DGNet(DGNetOptions()))
    assert bound.value.args[0] == ["SyncBatchNorm"]


def test_a_launch_of_processes_that_would_train_apart_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")  # and nothing else of a launch; the process has a state of one process
    monkeypatch.setenv("MASTER_ADDR", "")
    by_hand_error: Exception | None = None
    try:
        by_hand()
    except ConfigError as error:
        by_hand_error = error
    assert by_hand_error is not None
    assert "2 processes" in str(by_hand_error)


def test_a_budget_that_the_gates_cannot_meet_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ssl_dc.training.budget.set_threshold", lambda _encoder, _threshold: None)
    told: list[str] = []
    listener = Watcher()
    monkeypatch.setattr(listener, "on_message", told.append)
    run = ssl_dc.train({**TINY, "budget.target": 0.9}, output=tmp_path / "run", watchers=[listener])
    assert run.outcome.routes[Route.GATED].ratio < 0.85
    (message,) = told
    assert message.startswith("the budget is missed: 0.9 of the dense cost was asked for, 0.")
