"""BYOL against plain statements of the paper's equations, and its target: what it follows, what it leaves alone."""

from __future__ import annotations

import math
import shutil
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor, nn

import ssl_dc
from ssl_dc.testing import conformance
from ssl_dc_byol.objective import BYOL, distance
from ssl_dc_byol.options import BYOLOptions

torch.set_num_threads(1)

Array = NDArray[np.float64]
WORLD = 2
ROUTES = (ssl_dc.Route.GATED, ssl_dc.Route.DENSE)
SMALL: dict[str, Any] = {"width": 4, "hidden_width": 8}

test_byol = conformance("objective", "byol", settings=SMALL)
test_byol_with_targets_of_the_same_route = conformance("objective", "byol", settings={**SMALL, "target_route": "same"})


class Flat(ssl_dc.Backbone):
    """A linear map of flattened images, which keeps note of the routes it ran."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3 * 2 * 2, 6)
        self.ran: list[ssl_dc.Route] = []

    @property
    def feature_dim(self) -> int:
        return 6

    def forward(self, images: Tensor, route: ssl_dc.Route) -> tuple[Tensor, dict[str, Tensor]]:
        self.ran.append(route)
        return self.layer(images.flatten(1)), {}


class One(ssl_dc.Encoder):
    """One backbone for both routes."""

    def __init__(self) -> None:
        super().__init__()
        self.both = Flat()

    def backbone(self, route: ssl_dc.Route) -> Flat:  # noqa: ARG002
        return self.both


def seeded(options: BYOLOptions | None = None) -> tuple[One, BYOL]:
    """Encoder and objective in float64, the target a little away from the network."""
    torch.manual_seed(0)
    encoder = One().double()
    objective = BYOL(options or BYOLOptions(**SMALL), encoder.feature_dim).double()
    objective.bind(encoder)
    with torch.no_grad():
        for p in (*encoder.parameters(), *objective.projector.parameters()):
            p += 0.1 * torch.randn_like(p)
    return encoder, objective


def two_views(rows: int = 8) -> list[Tensor]:
    """Two views (rows, 3, 2, 2) whose halves differ in mean and spread."""
    generator = torch.Generator().manual_seed(1)
    view = torch.randn(rows, 3, 2, 2, generator=generator, dtype=torch.float64)
    view[rows // 2 :] = 2 * view[rows // 2 :] + 1
    return [view, view + 0.3 * torch.randn(view.shape, generator=generator, dtype=torch.float64)]


def run(encoder: One, objective: BYOL, images: list[Tensor]) -> ssl_dc.ObjectiveOutput:
    features = [encoder(view, route).features for view, route in zip(images, ROUTES, strict=True)]
    return objective(ssl_dc.EncodedViews(images, features, ROUTES))


def plain_head(layers: nn.Module, x: Array) -> Array:
    """Linear, batch norm by the batch's biased statistics, ReLU, Linear without bias."""
    first, norm, _, last = (layer for layer in layers.children())
    hidden = x @ first.weight.detach().numpy().T + first.bias.detach().numpy()
    hidden = (hidden - hidden.mean(axis=0)) / np.sqrt(hidden.var(axis=0) + 1e-5)
    hidden = hidden * norm.weight.detach().numpy() + norm.bias.detach().numpy()
    return np.asarray(np.maximum(hidden, 0) @ last.weight.detach().numpy().T)


def plain_features(encoder: nn.Module, images: Tensor) -> Array:
    layer = encoder.both.layer
    return np.asarray(images.flatten(1).numpy() @ layer.weight.detach().numpy().T + layer.bias.detach().numpy())


def plain_distance(prediction: Array, target: Array) -> float:
    """|| p / |p| - t / |t| ||^2, summed entry by entry, mean over rows: the middle of equation 2."""
    total = 0.0
    for p, t in zip(prediction, target, strict=True):
        length_p, length_t = math.sqrt(sum(v * v for v in p)), math.sqrt(sum(v * v for v in t))
        total += sum((a / length_p - b / length_t) ** 2 for a, b in zip(p, t, strict=True))
    return total / len(prediction)


def plain_loss(encoder: One, objective: BYOL, images: list[Tensor]) -> float:
    encoded, projector = objective.target.encoder, objective.target.head
    assert encoded is not None
    assert projector is not None
    predicted = [
        plain_head(objective.predictor, plain_head(objective.projector, plain_features(encoder, view))) for view in images
    ]
    targets = [plain_head(projector, plain_features(encoded, view)) for view in images]
    return plain_distance(predicted[0], targets[1]) + plain_distance(predicted[1], targets[0])


# The loss


def test_loss_is_that_of_the_equation() -> None:
    encoder, objective = seeded()
    output = run(encoder, objective, two_views())
    expected = plain_loss(encoder, objective, two_views())
    assert set(output.terms) == set(objective.weights) == {"regression"}
    term = output.terms["regression"]
    assert (term.shape, term.dtype) == ((), torch.float32)
    assert term.item() == pytest.approx(expected, rel=1e-5)
    assert 0.1 < expected < 8


def test_gradient_is_that_of_the_equation_with_the_target_held_still() -> None:
    encoder, objective = seeded()
    run(encoder, objective, two_views()).terms["regression"].backward()
    online = {f"encoder.{n}": p for n, p in encoder.named_parameters()}
    online.update({n: p for n, p in objective.named_parameters() if not n.startswith("target")})
    for name, parameter in online.items():
        assert parameter.grad is not None, name
        index = np.unravel_index(int(parameter.grad.abs().argmax()), tuple(parameter.shape))
        values = []
        for move in (1e-5, -2e-5):  # there, and to the other side
            with torch.no_grad():
                parameter[index] += move
            values.append(plain_loss(encoder, objective, two_views()))
        with torch.no_grad():
            parameter[index] += 1e-5
        expected = (values[0] - values[1]) / 2e-5
        assert parameter.grad[index].item() == pytest.approx(expected, rel=1e-3, abs=1e-7), name


def test_no_parameter_of_the_target_takes_a_gradient_and_all_others_do() -> None:
    encoder, objective = seeded()
    run(encoder, objective, two_views()).terms["regression"].backward()
    for name, parameter in objective.named_parameters():
        of_target = name.startswith("target.")
        assert parameter.requires_grad is not of_target, name
        assert (parameter.grad is None) is of_target, name
    assert all(p.grad is not None and p.requires_grad for p in encoder.parameters())


def test_a_prediction_that_points_where_its_target_does_costs_nothing() -> None:
    target = torch.randn(5, 3)
    assert distance(3 * target, target).item() == pytest.approx(0, abs=1e-6)
    assert distance(-target, target).item() == pytest.approx(4, rel=1e-6)


def test_the_term_is_float32_under_autocast() -> None:
    torch.manual_seed(0)
    encoder = One()
    objective = BYOL(BYOLOptions(**SMALL), encoder.feature_dim)
    objective.bind(encoder)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = run(encoder, objective, [view.float() for view in two_views()])
    assert output.terms["regression"].dtype is torch.float32
    output.terms["regression"].backward()
    assert all(p.grad is not None for p in encoder.parameters())


def test_training_before_there_is_a_target_is_refused() -> None:
    encoder = One()
    objective = BYOL(BYOLOptions(**SMALL), encoder.feature_dim)
    with pytest.raises(RuntimeError, match="call bind"):
        run(encoder, objective, [view.float() for view in two_views()])
    with pytest.raises(RuntimeError, match="call bind"):
        objective.after_step(encoder, 0.5)


# The target


@pytest.mark.parametrize(
    ("target_route", "expected"),
    [("dense", [ssl_dc.Route.DENSE, ssl_dc.Route.DENSE]), ("same", [ssl_dc.Route.GATED, ssl_dc.Route.DENSE])],
)
def test_the_target_takes_the_route_that_was_asked_for(target_route: str, expected: list[ssl_dc.Route]) -> None:
    encoder, objective = seeded(BYOLOptions.model_validate({**SMALL, "target_route": target_route}))
    run(encoder, objective, two_views())
    assert objective.target.encoder.both.ran == expected  # type: ignore[union-attr]


def test_the_target_is_the_moving_average_of_the_network() -> None:
    encoder, objective = seeded(BYOLOptions(**SMALL, momentum=0.8))
    target = objective.target
    assert target.encoder is not None
    expected = [p.detach().clone() for p in target.parameters()]
    for step in range(1, 5):
        with torch.no_grad():
            for p in (*encoder.parameters(), *objective.projector.parameters()):
                p += torch.randn_like(p)
        objective.after_step(encoder, step / 4)
        tau = 1 - 0.2 * (math.cos(math.pi * step / 4) + 1) / 2
        network = [*encoder.parameters(), *objective.projector.parameters()]
        expected = [tau * old + (1 - tau) * new for old, new in zip(expected, network, strict=True)]
    for mine, theirs in zip(target.parameters(), expected, strict=True):
        torch.testing.assert_close(mine.detach(), theirs.detach())
    assert not any(torch.equal(p, q) for p, q in zip(target.encoder.parameters(), encoder.parameters(), strict=True))


def test_the_target_normalises_by_the_batch_while_training() -> None:
    config = {"backbone": {"name": "resnet18", "width": 4, "stem": "cifar"}, "data": {"name": "digits"}}
    encoder = ssl_dc.Model.untrained(ssl_dc.RunConfig.model_validate(config)).encoder.train()
    objective = BYOL(BYOLOptions(**SMALL), encoder.feature_dim)
    objective.bind(encoder)
    objective.train()
    images = 5 + 3 * torch.randn(4, 3, 12, 12)
    expected = objective.projector(encoder(images, ssl_dc.Route.DENSE).features)
    (target,) = objective.target([images], [ssl_dc.Route.GATED])
    torch.testing.assert_close(target, expected.detach())


def test_what_is_saved_is_restored_with_the_target() -> None:
    encoder, objective = seeded()
    objective.after_step(encoder, 0.3)
    other_encoder, other = seeded(BYOLOptions(**SMALL))
    with torch.no_grad():
        for p in other.parameters():
            p.zero_()
    other.load_state_dict(objective.state_dict())
    other_encoder.load_state_dict(encoder.state_dict())
    one, two = (run(e, o, two_views()).terms["regression"] for e, o in ((encoder, objective), (other_encoder, other)))
    assert torch.equal(one, two)
    assert any(name.startswith("target.encoder.") for name in objective.state_dict())


# Two processes


def step(encoder: One, objective: BYOL, images: list[Tensor]) -> tuple[float, dict[str, Tensor]]:
    loss = run(encoder, objective, images).terms["regression"]
    loss.backward()
    modules = nn.ModuleDict({"encoder": encoder, "objective": objective})
    return loss.item(), {name: p.grad for name, p in modules.named_parameters() if p.grad is not None}


def worker(rank: int, folder: str) -> None:
    store = f"file://{folder}/store"
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=WORLD, timeout=timedelta(seconds=30))
    try:
        torch.save(step(*seeded(), [view[rank * 4 : rank * 4 + 4] for view in two_views()]), f"{folder}/{rank}.pt")
    finally:
        dist.destroy_process_group()


def test_two_processes_give_the_loss_and_the_averaged_gradient_of_one(tmp_path: Path) -> None:
    mp.spawn(worker, args=(str(tmp_path),), nprocs=WORLD, join=True)
    loss, whole = step(*seeded(), two_views())
    results = [torch.load(tmp_path / f"{rank}.pt") for rank in range(WORLD)]
    assert [result[0] for result in results] == pytest.approx([loss] * WORLD, rel=1e-6)
    for name, expected in whole.items():
        averaged = sum(result[1][name] for result in results) / WORLD
        torch.testing.assert_close(averaged, expected, rtol=1e-4, atol=1e-6, msg=name)
    half = step(*seeded(), [view[:4] for view in two_views()])[1]
    off = max((half[name] - expected).abs().max().item() for name, expected in whole.items())
    assert off > 1e-2, "half the batch must not do as well"


# In a run

TINY: dict[str, Any] = {
    "objective": "byol",
    "objective.width": 8,
    "objective.hidden_width": 16,
    "objective.momentum": 0.9,
    "backbone.width": 4,
    "data.limit": 16,
    "data.test_limit": 8,
    "data.image_size": 8,
    "training.batch_size": 8,
    "training.epochs": 2,
    "training.workers": 0,
    "training.keep_checkpoints": 9,
}


def saved(folder: Path, step: int, file: str = "learner") -> dict[str, Tensor]:
    return load_file(folder / "checkpoints" / f"step-{step:08d}" / f"{file}.safetensors")


@pytest.mark.parametrize("target_route", ["dense", "same"])
def test_a_resumed_run_is_the_uninterrupted_one_to_the_last_bit(tmp_path: Path, target_route: str) -> None:
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    ssl_dc.train({**TINY, "objective.target_route": target_route}, output=whole)
    shutil.copytree(whole, resumed)
    shutil.rmtree(resumed / "checkpoints" / "step-00000004")
    ssl_dc.resume(resumed)
    for file in ("learner", "optimizer"):
        expected, found = saved(whole, 4, file), saved(resumed, 4, file)
        assert expected.keys() == found.keys()
        assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_in_a_run_the_target_follows_is_no_part_of_the_model_and_is_given_to_no_optimiser(tmp_path: Path) -> None:
    run = ssl_dc.train(TINY, output=tmp_path / "run")
    network = {name: tensor for name, tensor in saved(tmp_path / "run", 4).items() if name.startswith("encoder.")}
    target = {
        name.removeprefix("objective.target."): tensor
        for name, tensor in saved(tmp_path / "run", 4).items()
        if name.startswith("objective.target.encoder.")
    }
    assert network.keys() == target.keys()
    earlier = saved(tmp_path / "run", 2)
    weight = next(name for name, tensor in network.items() if tensor.ndim == 4)
    assert not torch.equal(target[weight], earlier[f"objective.target.{weight}"])
    assert not torch.equal(target[weight], network[weight])
    assert not any("target" in name for name in run.model.encoder.state_dict())
    trained = [p for name, p in run.model.encoder.named_parameters()]
    heads = [n for n in saved(tmp_path / "run", 4) if n.startswith(("objective.projector.", "objective.predictor."))]
    heads = [name for name in heads if "running" not in name and "tracked" not in name]
    moments = [name for name in saved(tmp_path / "run", 4, "optimizer") if name.endswith(".exp_avg")]
    assert len(moments) == len(trained) + len(heads)


def test_options_are_checked() -> None:
    config = ssl_dc.RunConfig.model_validate({"objective": {"name": "byol", "momentum": 0.99}})
    assert isinstance(config.objective, BYOLOptions)
    assert (config.objective.momentum, config.objective.target_route) == (0.99, "dense")
    for wrong in ({"momentum": 1.5}, {"target_route": "gated"}, {"tau": 0.9}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            ssl_dc.RunConfig.model_validate({"objective": {"name": "byol", **wrong}})
