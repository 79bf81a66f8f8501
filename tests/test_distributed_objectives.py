"""Every objective: two processes with batch b give loss and averaged gradient of one with 2b (method section 2)."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ssl_dc.backbones.base import Backbone, Masks
from ssl_dc.encoders.base import Encoder
from ssl_dc.encoders.options import SharedEncoderOptions
from ssl_dc.encoders.shared import Shared
from ssl_dc.gating.base import GateFactory
from ssl_dc.gating.none import NoGating
from ssl_dc.gating.options import NoGatingOptions
from ssl_dc.plugins import registry
from ssl_dc.routes import Route
from ssl_dc.training.learner import Learner

torch.set_num_threads(1)  # on networks this small, threads only wait for one another

WORLD = 2
ROWS = 6
OBJECTIVES = registry().names("objective")
ROUTES = (Route.GATED, Route.DENSE)


class Flat(Backbone):
    """A backbone without batch statistics, so that what differs is the objective's doing."""

    def __init__(self, gate_factory: GateFactory) -> None:  # noqa: ARG002
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(3 * 2 * 2, 10), nn.Tanh(), nn.Linear(10, 6))

    @property
    def feature_dim(self) -> int:
        return 6

    def forward(self, images: Tensor, route: Route) -> tuple[Tensor, Masks]:  # noqa: ARG002
        return self.layers(images), {}


def make_learner(name: str) -> Learner:
    """The objective on a tiny encoder, as the training loop puts them together, in float64."""
    torch.manual_seed(0)
    part = registry().find("objective", name)
    model = part.options_model()
    small = {"expander_width": 8} if "expander_width" in model.model_fields else {}
    encoder: Encoder = Shared(SharedEncoderOptions(), Flat, NoGating(NoGatingOptions()))
    objective = part.target()(model.model_validate({"name": name, **small}), encoder.feature_dim)
    encoder.double()
    objective.bind(encoder)
    return Learner(encoder, objective).double()


def global_views() -> list[Tensor]:
    """Two views of the global batch; the halves that go to the two processes differ in mean and spread."""
    generator = torch.Generator().manual_seed(1)
    view = torch.randn(WORLD * ROWS, 3, 2, 2, generator=generator, dtype=torch.float64)
    view[ROWS:] = 2 * view[ROWS:] + 1
    return [view, view + 0.3 * torch.randn(view.shape, generator=generator, dtype=torch.float64)]


def step(module: nn.Module, views: list[Tensor]) -> dict[str, Any]:
    learner = module.module if isinstance(module, DistributedDataParallel) else module
    terms = module(views, ROUTES).objective.terms
    weights = learner.objective.weights
    loss = torch.stack([weights[name] * term for name, term in terms.items()]).sum()
    loss.backward()
    return {
        "loss": loss.detach(),
        "terms": {name: term.detach() for name, term in terms.items()},
        "gradients": {name: p.grad.clone() for name, p in learner.named_parameters() if p.grad is not None},
    }


def worker(process: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder}/store",
        rank=process,
        world_size=WORLD,
        timeout=timedelta(seconds=30),  # processes that fall out of step fail instead of hanging
    )
    try:
        mine = slice(process * ROWS, (process + 1) * ROWS)
        results = {}
        for name in OBJECTIVES:
            wrapped = DistributedDataParallel(make_learner(name), broadcast_buffers=False)
            results[name] = step(wrapped, [view[mine] for view in global_views()])
        torch.save(results, f"{folder}/{process}.pt")
    finally:
        dist.destroy_process_group()


@pytest.fixture(scope="module")
def processes(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder: Path = tmp_path_factory.mktemp("gloo")
    mp.spawn(worker, args=(str(folder),), nprocs=WORLD, join=True)
    return [torch.load(folder / f"{process}.pt") for process in range(WORLD)]


@pytest.mark.parametrize("name", OBJECTIVES)
def test_loss_and_each_term_equal_one_process(name: str, processes: list[dict[str, Any]]) -> None:
    alone = step(make_learner(name), global_views())
    assert all(term.abs().item() > 1e-4 for term in alone["terms"].values()), "a term that is 0 shows nothing"
    for results in processes:
        torch.testing.assert_close(results[name]["loss"], alone["loss"], rtol=1e-5, atol=1e-6)
        assert results[name]["terms"].keys() == alone["terms"].keys()
        for term, value in alone["terms"].items():
            torch.testing.assert_close(results[name]["terms"][term], value, rtol=1e-5, atol=1e-6, msg=term)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_averaged_gradient_equals_one_process(name: str, processes: list[dict[str, Any]]) -> None:
    alone = step(make_learner(name), global_views())
    assert alone["gradients"].keys() == {n for n, p in make_learner(name).named_parameters() if p.requires_grad}
    largest = max(gradient.abs().max().item() for gradient in alone["gradients"].values())
    assert largest > 1e-5
    for results in processes:
        assert results[name]["gradients"].keys() == alone["gradients"].keys()
        for parameter, gradient in alone["gradients"].items():
            torch.testing.assert_close(
                results[name]["gradients"][parameter], gradient, rtol=1e-5, atol=1e-5 * largest, msg=parameter
            )


@pytest.mark.parametrize("name", OBJECTIVES)
def test_half_the_batch_alone_gives_another_gradient(name: str) -> None:
    whole = step(make_learner(name), global_views())["gradients"]
    halves = [
        step(make_learner(name), [view[part * ROWS : (part + 1) * ROWS] for view in global_views()])["gradients"]
        for part in range(WORLD)
    ]
    largest = max(gradient.abs().max().item() for gradient in whole.values())
    off = max(((halves[0][n] + halves[1][n]) / 2 - gradient).abs().max().item() for n, gradient in whole.items())
    assert off > 1e-3 * largest, "this objective does not mix images: the other tests show nothing"
