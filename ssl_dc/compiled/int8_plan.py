"""A plan whose values are bytes and whose weights are int8."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from ssl_dc.compiled.plan import Conv, Plan

LARGEST_CODE = 255
"""The codes of activations are the numbers from 0 to this."""
LARGEST_WEIGHT = 127
"""Weights are the numbers from minus this to this, so that minus a weight is a weight."""


@dataclass(frozen=True)
class Code:
    """How a byte stands for a number: ``(byte - zero) * step``.

    Attributes:
        step: The difference between the numbers of two neighbouring bytes, above 0.
        zero: The byte that stands for 0, from 0 to 255. It is 0 where no number is negative.
    """

    step: float
    zero: int


@dataclass(frozen=True, kw_only=True, eq=False)
class Int8Conv(Conv):
    """A convolution of bytes with int8 weights, whose results are bytes.

    With the exact sum of the products of the input's bytes and the weights, and each operation rounded to float32, it gives
    ``round(clamp(sum * scale + bias + residual * residual_scale, low, 255))``; ties are rounded to even. The border of the
    input consists of bytes that stand for 0.

    Attributes:
        weight: (out, in, height, width) int8.
        bias: (out,) float32, in bytes of the output. It makes up for the zeros of the input and of the residual.
        scale: (out,) float32: how many bytes of the output one unit of the sum is worth.
        residual_scale: How many bytes of the output one byte of the residual is worth.
        low: The smallest byte of the output: the one that stands for 0 if a ReLU follows, else 0.
    """

    scale: Tensor
    residual_scale: float = 0.0
    low: float = 0.0


@dataclass(frozen=True, eq=False)
class Int8Plan(Plan):
    """A plan in int8. Its steps are convolutions, decisions, max-pools, ReLUs, and one mean, which gives the features.

    Attributes:
        codes: How the bytes of each value stand for numbers.
    """

    codes: Mapping[str, Code] = field(default_factory=dict)
