"""The activations that the float32 kernel knows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ACTIVATIONS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "relu": torch.relu,
    "gelu": F.gelu,
    "silu": F.silu,
    "hardswish": F.hardswish,
    "sigmoid": torch.sigmoid,
    "hardsigmoid": F.hardsigmoid,
    "relu6": F.relu6,
}
"""The functions by name, in the order of ``enum activation`` in activations.h; there 0 means none."""

_OF_MODULE: Mapping[type[nn.Module], str] = {
    nn.GELU: "gelu",
    nn.SiLU: "silu",
    nn.Hardswish: "hardswish",
    nn.Sigmoid: "sigmoid",
    nn.Hardsigmoid: "hardsigmoid",
    nn.ReLU6: "relu6",
}


@dataclass(frozen=True)
class Activation:
    """A function of each number by itself that the kernel knows.

    Attributes:
        name: A key of :data:`ACTIVATIONS`.
    """

    name: str

    def __call__(self, x: Tensor) -> Tensor:
        """The function of each number of a tensor."""
        return ACTIVATIONS[self.name](x)

    @property
    def number(self) -> int:
        """Its number in ``enum activation``."""
        return 1 + list(ACTIVATIONS).index(self.name)


RELU = Activation("relu")
_EXACT = nn.GELU().approximate
"""The option of a GELU that is computed by erf; the kernel knows no approximation."""


def activation_of_module(module: nn.Module) -> Activation | None:
    """The activation that a module computes; None if the kernel does not know it."""
    name = _OF_MODULE.get(type(module))
    known = name is not None and (not isinstance(module, nn.GELU) or module.approximate == _EXACT)
    return Activation(name) if known and name is not None else None


def activation_of_function(function: object, options: Mapping[str, Any]) -> Activation | None:
    """The activation that a function of torch computes with these options; None if the kernel does not know it."""
    others = {option: value for option, value in options.items() if option != "inplace"}
    if others not in ({}, {"approximate": _EXACT}):
        return None
    return next((Activation(name) for name, known in ACTIVATIONS.items() if known is function), None)
