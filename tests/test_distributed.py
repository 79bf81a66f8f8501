"""Two processes with batch b give loss and averaged gradient of one with batch 2b (method section 2)."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from helpers.command_line import HANGS
from ssl_dc.distributed import gather_batch, gather_batches, local_rows, mean_over_processes, rank, world_size
from ssl_dc.objectives.base import EncodedViews
from ssl_dc.objectives.heads import GlobalBatchNorm1d
from ssl_dc.objectives.options import VICRegOptions
from ssl_dc.objectives.vicreg import VICReg
from ssl_dc.routes import Route
from ssl_dc.testing.two_processes import in_two_processes

WORLD = 2
ROWS = 6


class Model(nn.Module):
    """A small encoder before the objective, so that gradients also pass through the features."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.encoder = nn.Linear(5, 6)
        self.objective = VICReg(VICRegOptions(expander_width=8), feature_dim=6)
        self.double()

    def forward(self, view1: Tensor, view2: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        features = (self.encoder(view1), self.encoder(view2))
        terms = self.objective(EncodedViews((view1, view2), features, (Route.GATED, Route.DENSE))).terms
        weights = self.objective.weights
        return torch.stack([weights[name] * term for name, term in terms.items()]).sum(), terms


def global_views() -> tuple[Tensor, Tensor]:
    """Two views of the global batch; the halves that go to the two processes differ in mean and spread."""
    generator = torch.Generator().manual_seed(1)
    view = torch.randn(WORLD * ROWS, 5, generator=generator, dtype=torch.float64)
    view[ROWS:] = 3 * view[ROWS:] + 2
    return view, view + 0.3 * torch.randn(view.shape, generator=generator, dtype=torch.float64)


def nonlinear_in_the_batch(x: Tensor, weight: float) -> Tensor:
    return weight * (x.sum(dim=0) ** 3).sum() + (x[0] * x[-1]).sum()


def train_step(model: nn.Module, view1: Tensor, view2: Tensor) -> dict[str, Any]:
    loss, terms = model(view1, view2)
    loss.backward()
    plain = model.module if isinstance(model, DistributedDataParallel) else model
    gradients = {name: p.grad.clone() for name, p in plain.named_parameters() if p.grad is not None}
    return {
        "loss": loss.detach(),
        "terms": {name: term.detach() for name, term in terms.items()},
        "gradients": gradients,
        "buffers": {name: buffer.clone() for name, buffer in plain.named_buffers()},
    }


def worker(process: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder}/store",
        rank=process,
        world_size=WORLD,
        timeout=timedelta(seconds=HANGS),  # processes that fall out of step fail in the end
    )
    try:
        mine = slice(process * ROWS, (process + 1) * ROWS)
        view1, view2 = (view[mine] for view in global_views())
        results: dict[str, Any] = {"world": world_size(), "rank": rank()}

        x = view1.clone().requires_grad_()
        gathered = gather_batch(x)
        results["gathered"] = gathered.detach()
        results["local"] = local_rows(gathered, ROWS).detach()
        nonlinear_in_the_batch(gathered, weight=1.0 + process).backward()
        results["gather_gradient"] = x.grad

        results["mean"] = mean_over_processes(torch.tensor([1.0 + process, 10.0 * process]))

        norm = GlobalBatchNorm1d(5).double()
        x = view1.clone().requires_grad_()
        y = norm(x)
        (y**3).sum().backward()
        results["norm"] = {"y": y.detach(), "x": x.grad, "weight": norm.weight.grad, "bias": norm.bias.grad}
        norm.eval()
        results["norm"]["evaluated"] = norm(view1).detach()

        wrapped = DistributedDataParallel(Model(), broadcast_buffers=False)
        results["step"] = train_step(wrapped, view1, view2)
        torch.save(results, f"{folder}/{process}.pt")
    finally:
        dist.destroy_process_group()


@pytest.fixture(scope="module")
def processes(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder: Path = tmp_path_factory.mktemp("gloo")
    mp.start_processes(worker, args=(str(folder),), nprocs=WORLD, start_method="forkserver")
    return [torch.load(folder / f"{process}.pt") for process in range(WORLD)]


@pytest.fixture(scope="module")
def alone() -> dict[str, Any]:
    return train_step(Model(), *global_views())


def test_one_process_is_a_world_of_its_own() -> None:
    x = torch.randn(4, 3, requires_grad=True)
    assert (world_size(), rank()) == (1, 0)
    assert gather_batch(x) is x
    assert torch.equal(local_rows(x, 4), x)
    assert torch.equal(mean_over_processes(x), x.detach())
    assert not mean_over_processes(x).requires_grad


def test_every_process_sees_the_global_batch_in_order(processes: list[dict[str, Any]]) -> None:
    view, _ = global_views()
    for process, results in enumerate(processes):
        assert (results["world"], results["rank"]) == (WORLD, process)
        assert torch.equal(results["gathered"], view)
        assert torch.equal(results["local"], view[process * ROWS : (process + 1) * ROWS])


def test_gather_gradient_is_that_of_all_losses_together(processes: list[dict[str, Any]]) -> None:
    x = global_views()[0].requires_grad_()
    sum(nonlinear_in_the_batch(x, weight=1.0 + process) for process in range(WORLD)).backward()
    received = torch.cat([results["gather_gradient"] for results in processes])
    torch.testing.assert_close(received, x.grad, rtol=1e-10, atol=1e-10)


def test_mean_over_processes(processes: list[dict[str, Any]]) -> None:
    assert all(results["mean"].tolist() == [1.5, 5.0] for results in processes)


def test_global_batch_norm_equals_one_process(processes: list[dict[str, Any]]) -> None:
    norm = nn.BatchNorm1d(5).double()
    x = global_views()[0].requires_grad_()
    y = norm(x)
    (y**3).sum().backward()
    evaluated = norm.eval()(x).detach()
    parts = [results["norm"] for results in processes]
    for name, expected in {"y": y.detach(), "x": x.grad, "evaluated": evaluated}.items():
        torch.testing.assert_close(torch.cat([part[name] for part in parts]), expected, rtol=1e-8, atol=1e-8)
    for name, expected in {"weight": norm.weight.grad, "bias": norm.bias.grad}.items():
        torch.testing.assert_close(sum(part[name] for part in parts), expected, rtol=1e-8, atol=1e-8)


def test_vicreg_loss_and_each_term_equal_one_process(processes: list[dict[str, Any]], alone: dict[str, Any]) -> None:
    assert all(term.item() > 1e-3 for term in alone["terms"].values()), "a term that is 0 shows nothing"
    for results in processes:
        torch.testing.assert_close(results["step"]["loss"], alone["loss"], rtol=1e-5, atol=1e-6)
        assert results["step"]["terms"].keys() == alone["terms"].keys()
        for name, term in alone["terms"].items():
            torch.testing.assert_close(results["step"]["terms"][name], term, rtol=1e-5, atol=1e-6)


def test_vicreg_averaged_gradient_equals_one_process(processes: list[dict[str, Any]], alone: dict[str, Any]) -> None:
    assert len(alone["gradients"]) == len(list(Model().parameters()))
    largest = max(gradient.abs().max().item() for gradient in alone["gradients"].values())
    assert largest > 1e-2
    for results in processes:
        assert results["step"]["gradients"].keys() == alone["gradients"].keys()
        for name, gradient in alone["gradients"].items():
            torch.testing.assert_close(
                results["step"]["gradients"][name], gradient, rtol=1e-5, atol=1e-5 * largest, msg=name
            )


def test_running_statistics_of_the_expander_equal_one_process(
    processes: list[dict[str, Any]], alone: dict[str, Any]
) -> None:
    names = [name for name in alone["buffers"] if "running" in name]
    assert len(names) == 4
    for results in processes:
        for name, buffer in alone["buffers"].items():
            torch.testing.assert_close(results["step"]["buffers"][name], buffer, rtol=1e-8, atol=1e-10, msg=name)


def gathered_together_and_alone(rank: int) -> tuple[int, list[list[Tensor]]]:
    """Exchanges of a gathering of three tensors with gradient, and what it gives; then what three gatherings give."""
    draw = torch.Generator().manual_seed(rank)
    tensors = [torch.randn(3, *shape, generator=draw, dtype=torch.float64).requires_grad_() for shape in ((4,), (), (2, 5))]
    counted = 0
    found = []
    for together in (True, False):
        with (
            patch.object(dist, "all_gather", wraps=dist.all_gather) as forward,
            patch.object(dist, "all_reduce", wraps=dist.all_reduce) as backward,
        ):
            wholes = gather_batches(tensors) if together else [gather_batch(each) for each in tensors]
            torch.stack([(whole**3).sum() * whole.sum() for whole in wholes]).sum().backward()
        counted = counted or forward.call_count + backward.call_count
        found.append([*(whole.detach() for whole in wholes), *(each.grad for each in tensors if each.grad is not None)])
        for each in tensors:
            each.grad = None
    return counted, found


def test_several_tensors_are_gathered_in_one_exchange() -> None:
    for exchanges, (together, alone) in in_two_processes(gathered_together_and_alone):
        assert exchanges == 2, "one for the values, one for the gradients"
        assert len(together) == 6
        for one, other in zip(together, alone, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


def test_alone_several_tensors_are_what_they_were() -> None:
    tensors = [torch.randn(3, 2), torch.randn(3)]
    assert all(one is other for one, other in zip(gather_batches(tensors), tensors, strict=True))
    assert gather_batches([]) == []
