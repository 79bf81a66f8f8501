"""SimCLR's NT-Xent against a plain statement of the paper's equation, alone and in two processes."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from numpy.typing import NDArray
from torch import Tensor, nn

import ssl_dc
from ssl_dc.testing import conformance
from ssl_dc_simclr.objective import SimCLR, nt_xent
from ssl_dc_simclr.options import SimCLROptions

torch.set_num_threads(1)

Array = NDArray[np.float64]
WORLD = 2

test_simclr = conformance("objective", "simclr", settings={"width": 8})


def cosine(u: Array, v: Array) -> float:
    return float(u @ v / math.sqrt((u @ u) * (v @ v)))


def plain_nt_xent(z1: Array, z2: Array, temperature: float) -> float:
    """Algorithm 1 of the paper, pair by pair: views of image k are numbers 2k - 1 and 2k."""
    z = [view for pair in zip(z1, z2, strict=True) for view in pair]

    def cost(i: int, j: int) -> float:
        others = sum(math.exp(cosine(z[i], z[k]) / temperature) for k in range(len(z)) if k != i)
        return -math.log(math.exp(cosine(z[i], z[j]) / temperature) / others)

    return sum(cost(2 * k, 2 * k + 1) + cost(2 * k + 1, 2 * k) for k in range(len(z1))) / len(z)


def differences(loss: Callable[[Array], float], at: Array, step: float = 1e-6) -> Array:
    """The gradient of a loss by central differences."""
    gradient = np.zeros_like(at)
    for index in np.ndindex(*at.shape):
        above, below = at.copy(), at.copy()
        above[index] += step
        below[index] -= step
        gradient[index] = (loss(above) - loss(below)) / (2 * step)
    return gradient


def embeddings(seed: int, rows: int = 5, columns: int = 4) -> tuple[Array, Array]:
    """Two correlated embeddings whose rows differ in length."""
    generator = np.random.default_rng(seed)
    z1 = generator.normal(size=(rows, columns)) * generator.uniform(0.1, 10, size=(rows, 1))
    return z1, 0.3 * z1 + 2 * generator.normal(size=(rows, columns))


def on_embeddings(temperature: float = 0.5) -> SimCLR:
    """The objective with a head that changes nothing, so that features are embeddings."""
    objective = SimCLR(SimCLROptions(temperature=temperature), feature_dim=4)
    objective.projector = nn.Identity()  # type: ignore[assignment]
    return objective


def run(objective: SimCLR, features1: Tensor, features2: Tensor) -> ssl_dc.ObjectiveOutput:
    features = (features1, features2)
    return objective(ssl_dc.EncodedViews(features, features, (ssl_dc.Route.GATED, ssl_dc.Route.DENSE)))


def unit(z: Array) -> Tensor:
    return torch.from_numpy(z / np.linalg.norm(z, axis=1, keepdims=True))


@pytest.mark.parametrize("temperature", [0.1, 0.5, 2.0])
@pytest.mark.parametrize("rows", [3, 6])
def test_value_is_that_of_the_equation(rows: int, temperature: float) -> None:
    z1, z2 = embeddings(seed=rows, rows=rows)
    expected = plain_nt_xent(z1, z2, temperature)
    assert expected > 1e-3
    assert nt_xent(unit(z1), unit(z2), temperature).item() == pytest.approx(expected, rel=1e-12)
    (name, term), *more = run(on_embeddings(temperature), torch.from_numpy(z1), torch.from_numpy(z2)).terms.items()
    assert (name, more) == ("contrast", [])
    assert (term.shape, term.dtype) == ((), torch.float32)
    assert term.item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("temperature", [0.1, 0.5])
def test_gradient_is_that_of_the_equation(temperature: float) -> None:
    z1, z2 = embeddings(seed=3)
    t1, t2 = torch.from_numpy(z1).requires_grad_(), torch.from_numpy(z2).requires_grad_()
    run(on_embeddings(temperature), t1, t2).terms["contrast"].backward()
    expected1 = differences(lambda moved: plain_nt_xent(moved, z2, temperature), z1)
    expected2 = differences(lambda moved: plain_nt_xent(z1, moved, temperature), z2)
    for tensor, expected in ((t1, expected1), (t2, expected2)):
        assert tensor.grad is not None
        np.testing.assert_allclose(tensor.grad.numpy(), expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())


def test_views_may_be_exchanged_and_lengths_do_not_matter() -> None:
    z1, z2 = (torch.from_numpy(z) for z in embeddings(seed=4))
    objective = on_embeddings()
    there = run(objective, z1, z2).terms["contrast"]
    torch.testing.assert_close(run(objective, z2, z1).terms["contrast"], there)
    torch.testing.assert_close(run(objective, 7 * z1, z2 / 3).terms["contrast"], there)


def test_embeddings_that_are_all_the_same_leave_a_guess_among_the_others() -> None:
    same = torch.ones(4, 4)
    assert run(on_embeddings(), same, same).terms["contrast"].item() == pytest.approx(math.log(2 * 4 - 1), rel=1e-6)


def test_a_sharp_temperature_does_not_overflow() -> None:
    z1, z2 = (torch.from_numpy(z).float().requires_grad_() for z in embeddings(seed=5))
    loss = run(on_embeddings(temperature=1e-3), z1, z2).terms["contrast"]
    loss.backward()
    assert torch.isfinite(loss)
    assert z1.grad is not None
    assert torch.isfinite(z1.grad).all()


def test_the_term_is_float32_under_autocast() -> None:
    torch.manual_seed(0)
    objective = SimCLR(SimCLROptions(width=8), feature_dim=6)
    features = torch.randn(2, 16, 6)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = run(objective, *features)
        heads = [objective.projector(view).float() for view in features]
    assert output.terms["contrast"].dtype is torch.float32
    z1, z2 = (z.detach().double().numpy() for z in heads)
    assert output.terms["contrast"].item() == pytest.approx(plain_nt_xent(z1, z2, 0.5), rel=1e-4)


def test_the_head_is_that_of_the_paper_and_follows_the_options() -> None:
    objective = SimCLR(SimCLROptions(width=12), feature_dim=20)
    shapes = {name: tuple(p.shape) for name, p in objective.named_parameters()}
    assert [shape for shape in shapes.values() if len(shape) == 2] == [(20, 20), (12, 20)]
    features = torch.randn(2, 6, 20, requires_grad=True)
    output = run(objective, *features)
    assert [tuple(z.shape) for z in output.embeddings] == [(6, 12), (6, 12)]
    output.terms["contrast"].backward()
    assert features.grad is not None
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in objective.parameters())
    assert set(objective.weights) == set(output.terms)


def seeded() -> tuple[SimCLR, Tensor]:
    """The objective in float64, and features (2, 8, 6) whose halves differ in mean and spread."""
    torch.manual_seed(0)
    objective = SimCLR(SimCLROptions(width=4), feature_dim=6).double()
    features = torch.randn(2, 8, 6, dtype=torch.float64)
    features[:, 4:] = 2 * features[:, 4:] + 1
    return objective, features


def gradients(objective: SimCLR, features: Tensor) -> tuple[float, list[Tensor]]:
    loss = run(objective, *features).terms["contrast"]
    loss.backward()
    return loss.item(), [p.grad for p in objective.parameters() if p.grad is not None]


def worker(rank: int, folder: str) -> None:
    store = f"file://{folder}/store"
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=WORLD, timeout=timedelta(seconds=30))
    try:
        objective, features = seeded()
        torch.save(gradients(objective, features[:, rank * 4 : rank * 4 + 4]), f"{folder}/{rank}.pt")
    finally:
        dist.destroy_process_group()


def test_two_processes_give_the_loss_and_the_averaged_gradient_of_one(tmp_path: Path) -> None:
    mp.spawn(worker, args=(str(tmp_path),), nprocs=WORLD, join=True)
    loss, whole = gradients(*seeded())
    results = [torch.load(tmp_path / f"{rank}.pt") for rank in range(WORLD)]
    assert [result[0] for result in results] == pytest.approx([loss] * WORLD, rel=1e-6)
    for parameter, expected in enumerate(whole):
        averaged = sum(result[1][parameter] for result in results) / WORLD
        torch.testing.assert_close(averaged, expected, rtol=1e-4, atol=1e-7)
    objective, features = seeded()
    alone = gradients(objective, features[:, :4])[1]
    assert (alone[0] - whole[0]).abs().max() > 1e-3, "half the batch must not do as well"


def test_it_is_found_and_its_options_are_checked_without_torch() -> None:
    config = ssl_dc.RunConfig.model_validate({"objective": {"name": "simclr", "temperature": 0.2}})
    assert isinstance(config.objective, SimCLROptions)
    assert config.objective.temperature == 0.2
    with pytest.raises(ValueError, match="temperature"):
        ssl_dc.RunConfig.model_validate({"objective": {"name": "simclr", "temperature": 0}})


def test_it_trains_with_a_gated_and_a_dense_view(tmp_path: Path) -> None:
    settings = {
        "objective": "simclr",
        "objective.width": 8,
        "backbone.width": 4,
        "data.limit": 16,
        "data.test_limit": 8,
        "training.batch_size": 8,
        "training.epochs": 1,
        "training.workers": 0,
    }
    run = ssl_dc.train(settings, output=tmp_path / "run")
    assert all(torch.isfinite(p).all() for p in run.model.encoder.parameters())
    assert run.outcome.routes[ssl_dc.Route.GATED].ratio < 0.9
