"""A plan whose values are bytes and whose weights are int8."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from torch import Tensor

from ssl_dc.compiled.plan import Plan
from ssl_dc.compiled.precisions import INT8
from ssl_dc.compiled.steps.layers import Conv
from ssl_dc.gating.cost import ImageSize

LARGEST_CODE = 255
"""The codes of activations are the numbers from 0 to this."""
LARGEST_WEIGHT = 127
"""Weights are at most the numbers from minus this to this, so that minus a weight is a weight."""
OF_STEP = 256
"""A fine byte counts parts of a step of this size."""
NO_LOSS = 128
"""The fine byte of a value that its code stands for exactly."""


@dataclass(frozen=True, eq=False)
class Code:
    """How a byte stands for a number: ``(byte - zero) * step``.

    A value that is read by more than convolutions has 16 bits: ``(number - origin) * unit``. The upper byte of the number
    is the byte above, rounded to nearest. The lower one, the fine byte, is what that lost, in 256ths of a step, plus 128.

    Attributes:
        step: For each channel the difference between the numbers of two neighbouring bytes, (channels,) float64 above 0.
        zero: The byte that stands for 0, from 0 to 255. It is 0 where no number is negative.
        fine: Whether there is a fine byte.
    """

    step: Tensor
    zero: int
    fine: bool = False

    @property
    def unit(self) -> Tensor:
        """The difference between two neighbouring numbers, (channels,) float64; the step without a fine byte."""
        return self.step / OF_STEP if self.fine else self.step

    @property
    def origin(self) -> int:
        """The number that stands for 0; the byte without a fine byte."""
        return OF_STEP * self.zero + NO_LOSS if self.fine else self.zero

    def picked(self, channels: Tensor) -> Code:
        """The code of some channels, given their indices."""
        return replace(self, step=self.step[channels])


def numbers(values: Tensor, code: Code) -> Tensor:
    """The numbers of 16 bits, or the bytes, that stand for values (..., channels, H, W); they are whole, and floats."""
    in_steps = (values / _of_channels(code.step, values) + code.zero).clamp(0, LARGEST_CODE)
    return (in_steps * OF_STEP).round() + NO_LOSS if code.fine else in_steps.round()


def encoded(values: Tensor, code: Code) -> Tensor:
    """The bytes that stand for values (..., channels, H, W), as floats."""
    whole = numbers(values, code)
    return (whole / OF_STEP).floor() if code.fine else whole


def decoded(codes: Tensor, code: Code) -> Tensor:
    """The values that bytes (..., channels, H, W) stand for."""
    return (codes - code.zero) * _of_channels(code.step, codes)


def _of_channels(sizes: Tensor, like: Tensor) -> Tensor:
    return sizes.to(like.dtype)[:, None, None]


@dataclass(frozen=True, kw_only=True, eq=False)
class Int8Conv(Conv):
    """A convolution of bytes with int8 weights, whose results are bytes.

    With the exact sum of the products of the input's bytes and the weights, and each operation rounded to float32, it gives
    ``round(clamp(sum * scale + bias + residual * residual_scale, low, 255))``; ties are rounded to even. The border of the
    input consists of bytes that stand for 0. With a fine byte the output is ``round(256 * clamp(...)) + 128`` instead.

    Attributes:
        weight: (out, in, height, width) int8.
        bias: (out,) float32, in bytes of the output. It makes up for the zeros of the input and of the residual.
        scale: (out,) float32: how many bytes of the output one unit of the sum is worth.
        residual_scale: (out,) float32: how many bytes of the output one unit of the residual is worth; None without one.
        low: The smallest byte of the output: the one that stands for 0 if a ReLU follows, else 0.
    """

    scale: Tensor
    residual_scale: Tensor | None = None
    low: float = 0.0


@dataclass(frozen=True, eq=False)
class Int8Plan(Plan):
    """A plan in int8. Its steps are convolutions, decisions, max-pools, ReLUs, and one mean, which gives the features.

    Attributes:
        codes: How the bytes of each value stand for numbers.
        calibrated_at: The size of the images on which these were measured.
    """

    codes: Mapping[str, Code] = field(default_factory=dict)
    calibrated_at: ImageSize | None = None

    @property
    def precision(self) -> str:
        """Int8."""
        return INT8

    @property
    def largest_weight(self) -> int:
        """The largest magnitude of a weight."""
        return max((int(step.weight.int().abs().max()) for step in self.steps if isinstance(step, Int8Conv)), default=0)
