"""Maxima and means over pixels."""

from __future__ import annotations

from dataclasses import dataclass

from ssl_dc.compiled.steps.base import Step


@dataclass(frozen=True, kw_only=True, eq=False)
class MaxPool(Step):
    """The maximum over square windows."""

    input: str
    kernel: int
    stride: int
    padding: int

    @property
    def inputs(self) -> tuple[str, ...]:
        """The pooled value."""
        return (self.input,)


@dataclass(frozen=True, kw_only=True, eq=False)
class Mean(Step):
    """The mean over the pixels: (N, C, H, W) to (N, C), or with ``keepdim`` to (N, C, 1, 1)."""

    input: str
    keepdim: bool = False

    @property
    def inputs(self) -> tuple[str, ...]:
        """The averaged value."""
        return (self.input,)
