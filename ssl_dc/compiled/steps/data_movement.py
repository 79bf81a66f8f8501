"""Numbers that are taken out of a value or arranged anew; none is computed."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ssl_dc.compiled.steps.base import Step


@dataclass(frozen=True, kw_only=True, eq=False)
class Choice(Step):
    """Some channels of (N, C, H, W), always the same.

    Attributes:
        channels: Their indices, ascending.
    """

    input: str
    channels: Tensor

    @property
    def inputs(self) -> tuple[str, ...]:
        """The value with all channels."""
        return (self.input,)


@dataclass(frozen=True, kw_only=True, eq=False)
class Subsample(Step):
    """Every ``stride``-th pixel of every ``stride``-th row, from the first on."""

    input: str
    stride: int

    @property
    def inputs(self) -> tuple[str, ...]:
        """The value whose pixels are taken."""
        return (self.input,)


@dataclass(frozen=True, kw_only=True, eq=False)
class Flatten(Step):
    """All axes after the first as one: (N, C, H, W) to (N, C * H * W)."""

    input: str

    @property
    def inputs(self) -> tuple[str, ...]:
        """The flattened value."""
        return (self.input,)


@dataclass(frozen=True, kw_only=True, eq=False)
class Rearrange(Step):
    """The same numbers with the channels on another axis.

    Attributes:
        form: ``tokens`` for (N, C, H, W) to (N, H * W, C), ``last`` for (N, C, H, W) to (N, H, W, C), and ``first`` for
            (N, H, W, C) to (N, C, H, W).
    """

    input: str
    form: str

    @property
    def inputs(self) -> tuple[str, ...]:
        """The value."""
        return (self.input,)
