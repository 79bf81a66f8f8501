"""Batch norms of two processes on the CPU give what one gives with both batches (method section 2)."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from ssl_dc.norms.global_batch import GlobalBatchNorm2d, with_global_norms
from ssl_dc.testing.two_processes import WORLD, in_two_processes

ROWS = 3
CPU = torch.device("cpu")


def images() -> Tensor:
    """The global batch; the halves differ in mean and spread."""
    x = torch.randn(WORLD * ROWS, 4, 5, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    x[ROWS:] = 3 * x[ROWS:] + 2
    return x.contiguous(memory_format=torch.channels_last)


def network(affine: bool, momentum: float | None) -> nn.Module:
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(4, momentum=momentum, affine=affine).double()
    if affine:
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)
    return nn.Sequential(nn.Conv2d(4, 4, 3).double(), norm, nn.Tanh())


def seen(net: nn.Module, x: Tensor, passes: int = 2) -> dict[str, Tensor]:
    """What two passes give: the output, the gradients of the sum of its cubes, the buffers."""
    x = x.clone().requires_grad_()
    for _ in range(passes):
        y = net(x)
        (y**3).sum().backward()
    gradients = {name: p.grad for name, p in net.named_parameters() if p.grad is not None}
    return {"y": y.detach(), "x": x.grad, "evaluated": net.eval()(x).detach(), **gradients, **dict(net.named_buffers())}


def of_one_process(affine: bool, momentum: float | None, rank: int) -> dict[str, Tensor]:
    net = with_global_norms(network(affine, momentum), CPU)
    assert isinstance(net[1], GlobalBatchNorm2d)
    return seen(net, images()[rank * ROWS : (rank + 1) * ROWS])


@pytest.mark.parametrize(("affine", "momentum"), [(True, 0.1), (False, None)])
def test_two_processes_normalise_as_one(affine: bool, momentum: float | None) -> None:
    whole = seen(network(affine, momentum), images())
    halves = in_two_processes(of_one_process, affine, momentum)
    for name in ("y", "x", "evaluated"):
        torch.testing.assert_close(torch.cat([half[name] for half in halves]), whole.pop(name), rtol=1e-9, atol=1e-10)
    for name, expected in whole.items():
        summed = "running" not in name and "tracked" not in name  # gradients of parts add up; buffers are the same
        found = sum(half[name] for half in halves) if summed else halves[0][name]
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-10, msg=name)


def in_bf16(rank: int) -> Tensor:
    net = with_global_norms(network(True, 0.1).float(), CPU)
    with torch.autocast("cpu", torch.bfloat16):
        y = net(images()[rank * ROWS : (rank + 1) * ROWS].float())
    y.float().sum().backward()
    return y.detach().float()


def test_they_normalise_in_bf16() -> None:
    expected = network(True, 0.1)(images()).detach().float()
    torch.testing.assert_close(torch.cat(in_two_processes(in_bf16)), expected, rtol=0.1, atol=0.1)


def test_alone_they_are_torchs_own() -> None:
    x, plain = images(), network(True, 0.1)
    expected = seen(plain, x)
    net = with_global_norms(network(True, 0.1), CPU)
    parameters = dict(net.named_parameters())
    assert list(net.state_dict()) == list(plain.state_dict())
    for name, value in seen(net, x).items():
        assert torch.equal(value, expected[name]), name
    assert parameters == dict(net.named_parameters())
