"""Batch norm and layer norm."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from ssl_dc.compiled.steps.base import Step


@dataclass(frozen=True, kw_only=True, eq=False)
class Norm(Step):
    """A batch norm in evaluation mode."""

    input: str
    norm: nn.BatchNorm2d

    @property
    def inputs(self) -> tuple[str, ...]:
        """The normalised value."""
        return (self.input,)


@dataclass(frozen=True, kw_only=True, eq=False)
class LayerNorm(Step):
    """A layer norm over the channels of each position.

    Attributes:
        weight: (channels,).
        bias: (channels,).
        eps: Added to the variance.
        axis: The axis of the channels: 1 in (N, C, H, W), -1 in (N, T, C) and (N, H, W, C).
    """

    input: str
    weight: Tensor
    bias: Tensor
    eps: float
    axis: int

    @property
    def inputs(self) -> tuple[str, ...]:
        """The normalised value."""
        return (self.input,)
