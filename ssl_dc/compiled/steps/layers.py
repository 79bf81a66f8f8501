"""Layers with weights: convolutions and linear layers, with what is fused into them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from ssl_dc.compiled.activations import Activation
from ssl_dc.compiled.steps.base import Step


@dataclass(frozen=True, kw_only=True, eq=False)
class Conv(Step):
    """A convolution with bias, then the sum with a residual, then an activation.

    Attributes:
        layer: Name of the layer in the backbone.
        weight: (out, in / groups, height, width).
        bias: (out,).
        groups: Groups of inputs and outputs that are convolved with each other only.
        residual: Name of the value that is added; None: nothing is.
        activation: The activation that follows; None: none does.
        in_site: Name of the channel site whose mask says which inputs are present; the others are 0.
        out_site: Name of the channel site whose mask says which outputs are needed; the others are 0. A grouped convolution
            has one site on both sides, or only this one if all inputs are there.
        in_span: How many neighbouring inputs an entry of the site's mask stands for.
        out_span: How many neighbouring outputs an entry of the site's mask stands for.
    """

    input: str
    layer: str
    weight: Tensor
    bias: Tensor
    stride: int
    padding: tuple[int, int]
    groups: int = 1
    residual: str | None = None
    activation: Activation | None = None
    in_site: str | None = None
    out_site: str | None = None
    in_span: int = 1
    out_span: int = 1

    @property
    def inputs(self) -> tuple[str, ...]:
        """The convolved value, and the residual."""
        return (self.input,) if self.residual is None else (self.input, self.residual)

    @property
    def is_depthwise(self) -> bool:
        """Whether each output is made of one input of its own."""
        return self.groups == len(self.weight) > 1 == self.weight.shape[1]

    def shape(self, shape: Sequence[int]) -> tuple[int, int, int, int]:
        """Shape (N, out, H', W') of the output, all outputs kept, for an input of shape (N, in, H, W)."""
        height, width = (
            (size + 2 * padding - kernel) // self.stride + 1
            for size, padding, kernel in zip(shape[2:], self.padding, self.weight.shape[2:], strict=True)
        )
        return shape[0], self.weight.shape[0], height, width


@dataclass(frozen=True, kw_only=True, eq=False)
class Linear(Step):
    """A linear layer with bias on the last axis of a value, then an activation.

    Attributes:
        layer: Name of the layer in the backbone.
        weight: (out, in).
        bias: (out,).
        activation: The activation that follows; None: none does.
        in_site: Name of the channel site whose mask says which inputs are present; the others are 0.
        out_site: Name of the channel site whose mask says which outputs are needed; the others are 0.
        in_span: How many neighbouring inputs an entry of the site's mask stands for.
        out_span: How many neighbouring outputs an entry of the site's mask stands for.
    """

    input: str
    layer: str
    weight: Tensor
    bias: Tensor
    activation: Activation | None = None
    in_site: str | None = None
    out_site: str | None = None
    in_span: int = 1
    out_span: int = 1

    @property
    def inputs(self) -> tuple[str, ...]:
        """The value that is mapped."""
        return (self.input,)
