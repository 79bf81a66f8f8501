"""LARS against a step worked by hand and a plain numpy statement of method section 1."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ssl_dc.optimizers.base import ParameterGroup
from ssl_dc.optimizers.lars import LARS, build
from ssl_dc.optimizers.options import LARSOptions

Array = NDArray[np.float64]


def parameter(values: object) -> nn.Parameter:
    return nn.Parameter(torch.tensor(values, dtype=torch.float64))


def one_group(*parameters: nn.Parameter) -> list[ParameterGroup]:
    return [ParameterGroup(list(parameters), decay=True)]


class PlainLARS:
    """One parameter under LARS and momentum SGD, in numpy."""

    def __init__(self, p: Array, decay: float, momentum: float = 0.9, trust: float = 0.02) -> None:
        self.p, self.decay, self.momentum, self.trust = p.copy(), decay, momentum, trust
        self.buf = np.zeros_like(p)
        self.clipped: list[bool] = []

    def step(self, g: Array, lr: float) -> None:
        scaled = g
        if self.p.ndim > 1:
            p_norm, g_norm = math.sqrt((self.p**2).sum()), math.sqrt((g**2).sum())
            q = self.trust * p_norm / (g_norm + self.decay * p_norm + 1e-8)
            self.clipped.append(q / lr > 1)
            scaled = min(q / lr, 1.0) * (g + self.decay * self.p)
        self.buf = self.momentum * self.buf + scaled
        self.p = self.p - lr * self.buf


def test_published_defaults() -> None:
    options = LARSOptions()
    assert (options.momentum, options.weight_decay, options.trust) == (0.9, 1e-4, 0.02)


def test_first_step_by_hand() -> None:
    # |p| = 5, |g| = 1, q = 0.02 * 5 / (1 + 0.1 * 5) = 1/15 < lr: the step is 1/15 * (g + 0.1 p)
    p = parameter([[3.0, 4.0]])
    optimizer = build(LARSOptions(weight_decay=0.1), one_group(p), lr=0.3)
    p.grad = torch.tensor([[0.6, 0.8]], dtype=torch.float64)
    optimizer.step()
    assert p.tolist()[0] == pytest.approx([3 - (0.6 + 0.3) / 15, 4 - (0.8 + 0.4) / 15], rel=1e-7)


def test_first_step_with_the_clip_by_hand() -> None:
    # |g| = 0.01: q = 0.1 / 0.51 = 0.196 > lr = 0.1: plain SGD with weight decay
    p = parameter([[3.0, 4.0]])
    optimizer = build(LARSOptions(weight_decay=0.1), one_group(p), lr=0.1)
    p.grad = torch.tensor([[0.006, 0.008]], dtype=torch.float64)
    optimizer.step()
    assert p.tolist()[0] == pytest.approx([3 - 0.1 * 0.306, 4 - 0.1 * 0.408], rel=1e-12)


@pytest.mark.parametrize("gradient_size", [1e-3, 1.0, 100.0])
def test_several_steps_under_a_schedule_equal_the_plain_statement(gradient_size: float) -> None:
    generator = np.random.default_rng(0)
    shapes: dict[str, tuple[int, ...]] = {
        "matrix": (3, 4),
        "kernel": (4, 2, 3, 3),
        "bias": (5,),
        "gate": (4, 3),
    }
    starts = {name: generator.normal(size=shape) for name, shape in shapes.items()}
    decays = {"matrix": 0.05, "kernel": 0.05, "bias": 0.0, "gate": 0.0}
    plain = {name: PlainLARS(start, decays[name]) for name, start in starts.items()}
    torch_side = {name: nn.Parameter(torch.from_numpy(start.copy())) for name, start in starts.items()}
    groups = [
        ParameterGroup([torch_side[name] for name in ("matrix", "kernel", "bias")], decay=True),
        ParameterGroup([torch_side["gate"]], decay=False),
    ]
    optimizer = build(LARSOptions(weight_decay=0.05), groups, lr=0.3)
    for lr in (0.003, 0.1, 0.3, 0.25, 0.01):
        for group in optimizer.param_groups:
            group["lr"] = lr
        for name, tensor in torch_side.items():
            g = gradient_size * generator.normal(size=shapes[name])
            tensor.grad = torch.from_numpy(g.copy())
            plain[name].step(g, lr)
        optimizer.step()
    for name, tensor in torch_side.items():
        np.testing.assert_allclose(tensor.detach().numpy(), plain[name].p, rtol=1e-10, atol=1e-13, err_msg=name)
    clipped = [clip for one in plain.values() for clip in one.clipped]
    assert {1e-3: all(clipped), 1.0: len(set(clipped)) == 2, 100.0: not any(clipped)}[gradient_size], clipped


def test_trust_coefficient_and_momentum_are_options() -> None:
    start = np.array([[1.0, -2.0], [0.5, 3.0]])
    plain = PlainLARS(start, decay=0.01, momentum=0.5, trust=0.001)
    p = parameter(start.tolist())
    optimizer = build(LARSOptions(weight_decay=0.01, momentum=0.5, trust=0.001), one_group(p), lr=0.3)
    for _ in range(3):
        g = np.array([[0.3, 1.0], [-2.0, 0.1]])
        p.grad = torch.from_numpy(g.copy())
        optimizer.step()
        plain.step(g, 0.3)
    np.testing.assert_allclose(p.detach().numpy(), plain.p, rtol=1e-12)


def test_one_dimensional_parameters_are_neither_scaled_nor_decayed() -> None:
    p = parameter([3.0, 4.0])
    optimizer = build(LARSOptions(weight_decay=0.1, momentum=0.0), one_group(p), lr=0.3)
    p.grad = torch.tensor([60.0, 80.0], dtype=torch.float64)
    optimizer.step()
    assert p.tolist() == pytest.approx([3 - 0.3 * 60, 4 - 0.3 * 80], rel=1e-12)


def test_gates_are_scaled_but_not_decayed() -> None:
    # |p| = 5, |g| = 1, no decay: q = 0.02 * 5 / 1 = 0.1
    gate = parameter([[3.0, 4.0]])
    groups = [ParameterGroup([gate], decay=False)]
    optimizer = build(LARSOptions(weight_decay=0.5), groups, lr=0.3)
    gate.grad = torch.tensor([[0.6, 0.8]], dtype=torch.float64)
    optimizer.step()
    assert gate.tolist()[0] == pytest.approx([3 - 0.06, 4 - 0.08], rel=1e-7)


def test_step_leaves_the_settings_of_every_group_as_they_were() -> None:
    decayed, gate = parameter([[1.0, 2.0]]), parameter([[1.0, 2.0]])
    groups = [ParameterGroup([gate], decay=False), ParameterGroup([decayed], decay=True)]
    optimizer = build(LARSOptions(weight_decay=0.1), groups, lr=0.3)
    for p in (decayed, gate):
        p.grad = torch.ones_like(p)
    optimizer.step()
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.0, 0.1]
    assert [group["lr"] for group in optimizer.param_groups] == [0.3, 0.3]


def test_nothing_moves_at_learning_rate_0() -> None:
    p, b = parameter([[3.0, 4.0]]), parameter([1.0])
    optimizer = build(LARSOptions(), one_group(p, b), lr=0.3)
    for lr in (0.3, 0.0):
        p.grad, b.grad = torch.ones_like(p), torch.ones_like(b)
        optimizer.param_groups[0]["lr"] = lr
        before = [p.detach().clone(), b.detach().clone()]
        optimizer.step()
    assert torch.equal(p.detach(), before[0])
    assert torch.equal(b.detach(), before[1])


def test_parameter_without_gradient_is_left_alone() -> None:
    used, unused = parameter([[3.0, 4.0]]), parameter([[1.0, 1.0]])
    optimizer = build(LARSOptions(weight_decay=0.1), one_group(used, unused), lr=0.3)
    used.grad = torch.ones_like(used)
    optimizer.step()
    assert unused.tolist() == [[1.0, 1.0]]


def test_saved_state_continues_the_same_run() -> None:
    def gradients(step: int) -> Tensor:
        return torch.tensor([[1.0 + step, -0.5]], dtype=torch.float64)

    whole = parameter([[3.0, 4.0]])
    optimizer = build(LARSOptions(), one_group(whole), lr=0.3)
    for step in range(4):
        if step == 2:
            kept, state = whole.detach().clone(), copy.deepcopy(optimizer.state_dict())
            resumed = nn.Parameter(kept.clone())
            second = build(LARSOptions(), one_group(resumed), lr=0.3)
            second.load_state_dict(state)
        whole.grad = gradients(step)
        optimizer.step()
    for step in (2, 3):
        resumed.grad = gradients(step)
        second.step()
    assert torch.equal(resumed, whole)
    assert not torch.equal(kept, whole.detach())


def test_step_leaves_gradients_as_they_were() -> None:
    p = parameter([[3.0, 4.0]])
    optimizer = build(LARSOptions(weight_decay=0.1), one_group(p), lr=0.3)
    p.grad = torch.tensor([[0.6, 0.8]], dtype=torch.float64)
    optimizer.step()
    assert p.grad.tolist() == [[0.6, 0.8]]


def test_step_with_a_closure_equals_step_after_backward() -> None:
    results = []
    for with_closure in (False, True):
        p = parameter([[3.0, 4.0]])
        optimizer = build(LARSOptions(weight_decay=0.1), one_group(p), lr=0.3)
        assert isinstance(optimizer, LARS)

        def closure(p: nn.Parameter = p) -> float:
            p.grad = None
            loss = (p * torch.tensor([[0.6, 0.8]], dtype=torch.float64)).sum()
            loss.backward()
            return loss.item()

        if with_closure:
            with torch.enable_grad():
                optimizer.step(closure)
        else:
            closure()
            optimizer.step()
        results.append(p.tolist()[0])
    assert results[1] == pytest.approx(results[0], rel=1e-9)
