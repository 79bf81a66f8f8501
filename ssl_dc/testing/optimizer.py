"""What an optimiser must do: checks on the sum of squares of a kernel, a matrix, a bias and a weight of a gate."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ssl_dc.optimizers.base import ParameterGroup
from ssl_dc.testing.check import Subject, expect
from ssl_dc.training.checkpoint import optimizer_tensors, restore_optimizer

LR = 1e-2
SHAPES = {"kernel": (4, 3, 3, 3), "matrix": (5, 4), "bias": (5,), "gate": (4, 5)}

Parameters = Mapping[str, nn.Parameter]


def builds_an_optimizer(subject: Subject) -> None:
    """The target, called with options, groups and a learning rate, returns a `torch.optim.Optimizer`."""
    optimizer = subject.build(_groups(_parameters()), LR)
    expect(isinstance(optimizer, Optimizer), f"expected a torch.optim.Optimizer, saw {optimizer!r}")


def every_parameter_is_taken_once(subject: Subject) -> None:
    """Its groups hold every parameter that it was given exactly once, and no other."""
    parameters = _parameters()
    taken = [id(p) for group in _optimizer(subject, parameters).param_groups for p in group["params"]]
    expected = {id(p): name for name, p in parameters.items()}
    expect(
        sorted(taken) == sorted(expected),
        f"expected each of {len(expected)} parameters once, saw {len(taken)}, of which {len(set(taken))} differ",
    )


def the_rate_is_the_one_asked_for(subject: Subject) -> None:
    """The `lr` of each group is in proportion to the peak learning rate, so that the schedule can scale it."""
    once, twice = ([group["lr"] for group in _optimizer(subject, _parameters(), lr).param_groups] for lr in (LR, 2 * LR))
    for lr, doubled in zip(once, twice, strict=True):
        expect(lr > 0, f"expected a learning rate above 0, saw {lr}")
        expect(abs(doubled - 2 * lr) < 1e-9, f"expected the rate {2 * lr:g} for twice the peak rate, saw {doubled:g}")


def steps_lower_the_loss(subject: Subject) -> None:
    """Each of the first steps along the gradient of a sum of squares lowers the square of every parameter."""
    parameters = _parameters()
    optimizer = _optimizer(subject, parameters)
    for step in range(1, 6):
        before = {name: float(p.detach().square().sum()) for name, p in parameters.items()}
        _step(optimizer, parameters)
        for name, p in parameters.items():
            after = float(p.detach().square().sum())
            expect(
                after < before[name],
                f"expected step {step} to lower the square of the {name}, {before[name]:g}, saw {after:g}",
            )


def a_rate_of_zero_moves_nothing(subject: Subject) -> None:
    """At a learning rate of 0, with which the schedule ends, a step changes no parameter."""
    parameters = _parameters()
    optimizer = _optimizer(subject, parameters)
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    before = _values(parameters)
    _step(optimizer, parameters)
    for name, p in parameters.items():
        expect(torch.equal(p, before[name]), f"expected the {name} to stay at a rate of 0, saw it move")


def gates_are_not_decayed(subject: Subject) -> None:
    """A parameter of a group with `decay=False` does not change while its gradient is 0."""
    parameters = _parameters()
    optimizer = _optimizer(subject, parameters)
    before = _values(parameters)
    for p in parameters.values():
        p.grad = torch.zeros_like(p)
    optimizer.step()
    for name, p in parameters.items():
        expect(bool(p.isfinite().all()), f"expected a finite {name} after a gradient of zero, saw {p}")
    expect(
        torch.equal(parameters["gate"], before["gate"]),
        "expected a parameter without decay to stay under a gradient of zero, saw it move",
    )


def a_parameter_without_gradient_stays(subject: Subject) -> None:
    """A parameter without a gradient does not change. Gates have none while they are warmed up."""
    parameters = _parameters()
    optimizer = _optimizer(subject, parameters)
    before = _values(parameters)
    for name, p in parameters.items():
        p.grad = None if name == "gate" else p.detach().clone()
    optimizer.step()
    expect(torch.equal(parameters["gate"], before["gate"]), "expected a parameter without gradient to stay, saw it move")


def state_is_saved_whole(subject: Subject) -> None:
    """Its state has tensors only. A new optimiser with that state takes exactly the same next steps."""
    parameters = _parameters()
    optimizer = _optimizer(subject, parameters)
    for _ in range(3):
        _step(optimizer, parameters)
    tensors = {name: tensor.clone() for name, tensor in optimizer_tensors(optimizer).items()}
    again = {name: nn.Parameter(p.detach().clone()) for name, p in parameters.items()}
    restored = _optimizer(subject, again)
    restore_optimizer(restored, tensors)
    for _ in range(2):
        _step(optimizer, parameters)
        _step(restored, again)
        for name, p in parameters.items():
            expect(
                torch.equal(p, again[name]),
                f"expected the same next step of the {name} from the saved state, saw it off by"
                f" {(p - again[name]).abs().max():g}",
            )


def _parameters() -> dict[str, nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    # none is near 0, where a step of fixed length would overshoot
    return {name: nn.Parameter(1 + torch.rand(shape, generator=generator)) for name, shape in SHAPES.items()}


def _groups(parameters: Parameters) -> list[ParameterGroup]:
    return [
        ParameterGroup([p for name, p in parameters.items() if name != "gate"], decay=True),
        ParameterGroup([parameters["gate"]], decay=False),
    ]


def _optimizer(subject: Subject, parameters: Parameters, lr: float = LR) -> Optimizer:
    optimizer: Optimizer = subject.build(_groups(parameters), lr)
    return optimizer


def _values(parameters: Parameters) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in parameters.items()}


def _step(optimizer: Optimizer, parameters: Parameters) -> None:
    optimizer.zero_grad()
    torch.stack([p.square().sum() for p in parameters.values()]).sum().backward()
    optimizer.step()


CHECKS = (
    builds_an_optimizer,
    every_parameter_is_taken_once,
    the_rate_is_the_one_asked_for,
    steps_lower_the_loss,
    a_rate_of_zero_moves_nothing,
    gates_are_not_decayed,
    a_parameter_without_gradient_stays,
    state_is_saved_whole,
)
