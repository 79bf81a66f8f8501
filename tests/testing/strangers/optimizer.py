"""Optimisers: SGD with momentum, and faulty ones."""

from __future__ import annotations

from torch.optim import SGD


def sgd(groups, lr, **options):
    return SGD(
        [{"params": group.parameters, "weight_decay": 0.1 if group.decay else 0.0} for group in groups],
        lr=lr,
        momentum=0.9,
        **options,
    )


def Momentum(options, groups, lr):
    return sgd(groups, lr)


class Counting(SGD):
    def step(self, closure=None):
        super().step(closure)
        for state in self.state.values():
            state["steps"] = state.get("steps", 0) + 1


def CountsInPython(options, groups, lr):
    return Counting([{"params": group.parameters} for group in groups], lr=lr, momentum=0.9)


def DecaysGates(options, groups, lr):
    return SGD([{"params": group.parameters} for group in groups], lr=lr, weight_decay=0.1)


def ForgetsBiases(options, groups, lr):
    return SGD([{"params": [p for p in group.parameters if p.ndim > 1]} for group in groups], lr=lr)


def OwnRate(options, groups, lr):
    return sgd(groups, lr=options.lr)


def ClimbsUp(options, groups, lr):
    return sgd(groups, lr, maximize=True)
