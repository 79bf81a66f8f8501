"""Arithmetic on each number by itself: activations, sums and products."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from ssl_dc.compiled.steps.base import Step


@dataclass(frozen=True, kw_only=True, eq=False)
class Pointwise(Step):
    """A function of each number of a value by itself, such as an activation.

    Attributes:
        function: Called with the value, or with those of its channels that are present. It is an
            :class:`~ssl_dc.compiled.activations.Activation` if the kernel knows it.
    """

    input: str
    function: Callable[[Tensor], Tensor]

    @property
    def inputs(self) -> tuple[str, ...]:
        """The value."""
        return (self.input,)


@dataclass(frozen=True, kw_only=True, eq=False)
class Relu(Step):
    """max(0, input), or with ``relu`` False the input itself.

    The second form stands for a sum whose gated branch is shut.
    """

    input: str
    relu: bool = True

    @property
    def inputs(self) -> tuple[str, ...]:
        """The rectified value."""
        return (self.input,)


@dataclass(frozen=True, kw_only=True, eq=False)
class Add(Step):
    """The sum of two values of one shape."""

    left: str
    right: str

    @property
    def inputs(self) -> tuple[str, ...]:
        """Both values."""
        return (self.left, self.right)


@dataclass(frozen=True, kw_only=True, eq=False)
class Multiply(Step):
    """The product of two values (N, C, H, W); one of them may have a single pixel, as in squeeze-and-excitation."""

    left: str
    right: str

    @property
    def inputs(self) -> tuple[str, ...]:
        """Both values."""
        return (self.left, self.right)


@dataclass(frozen=True, kw_only=True, eq=False)
class Scale(Step):
    """A value times a constant for each channel.

    Attributes:
        factor: (channels,).
        axis: The axis of the channels: 1 in (N, C, H, W), -1 in (N, T, C) and (N, H, W, C).
    """

    input: str
    factor: Tensor
    axis: int

    @property
    def inputs(self) -> tuple[str, ...]:
        """The scaled value."""
        return (self.input,)
