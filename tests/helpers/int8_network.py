"""What a plan in int8 computes, stated in NumPy: whole numbers, and float32 operations that are rounded one by one.

A value is an array of bytes, or of numbers of 16 bits: of these the upper byte is what convolutions read.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from ssl_dc.compiled.int8_plan import Code, Int8Conv, Int8Plan
from ssl_dc.compiled.steps.base import Step
from ssl_dc.compiled.steps.elementwise import Relu
from ssl_dc.compiled.steps.gates import Decide
from ssl_dc.compiled.steps.pooling import MaxPool, Mean

Bytes = npt.NDArray[np.uint8]
Held = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]
Floats = npt.NDArray[np.float32]
F = np.float32
LANES = 16
"""Partial sums of a dot product of floats."""


def run(plan: Int8Plan, image: Floats) -> tuple[Floats, dict[str, npt.NDArray[np.bool_]]]:
    """Features (feature_dim,) and the mask of each site for an image (3, H, W)."""
    code = plan.codes[plan.input]
    with np.errstate(over="ignore"):
        values: dict[str, Held] = {plan.input: to_bytes(image * F(float(1 / code.step[0])) + F(code.zero))}
    masks: dict[str, npt.NDArray[np.bool_]] = {}
    features: Floats = np.zeros(0, F)
    for step in plan.steps:
        if isinstance(step, Decide):
            masks[step.output] = decided(step, values[step.input], plan.codes[step.input])
        elif not runs(step, masks):
            continue
        elif isinstance(step, Int8Conv):
            values[step.output] = convolved(step, values, masks, plan.codes)
        elif isinstance(step, MaxPool):
            values[step.output] = pooled(step, values[step.input])
        elif isinstance(step, Relu):
            given, made = plan.codes[step.input], plan.codes[step.output]
            ratio = (given.step / (256 if given.fine else 1) / made.step).numpy().astype(F)[:, None, None]
            origin = 256 * given.zero + 128 if given.fine else given.zero
            copied = values[step.input].astype(F) * ratio + (made.zero - origin * ratio.astype(np.float64)).astype(F)
            values[step.output] = to_held(copied, made, made.zero if step.relu else 0)
        elif isinstance(step, Mean):
            features = means(values[step.input], plan.codes[step.input])
        else:
            raise TypeError(type(step).__name__)
    return features, masks


def runs(step: Step, masks: Mapping[str, npt.NDArray[np.bool_]]) -> bool:
    """Whether a step is computed with these masks."""
    if step.when is not None:
        return bool(masks[step.when].any())
    return step.unless is None or not masks[step.unless].any()


def to_bytes(values: Floats, low: float = 0) -> Bytes:
    """The nearest bytes, from ``low`` on; ties go to the even one."""
    assert values.dtype == F
    return np.rint(np.clip(values, F(low), F(255))).astype(np.uint8)


def to_held(values: Floats, code: Code, low: float = 0) -> Held:
    """The nearest bytes, or numbers of 16 bits if the code has a fine byte."""
    if not code.fine:
        return to_bytes(values, low)
    assert values.dtype == F
    return (np.rint(np.clip(values, F(low), F(255)) * F(256)) + 128).astype(np.uint16)


def bytes_of(held: Held) -> Bytes:
    """The bytes that convolutions read."""
    return held if held.dtype == np.uint8 else (held // 256).astype(np.uint8)


def convolved(
    step: Int8Conv, values: Mapping[str, Held], masks: Mapping[str, npt.NDArray[np.bool_]], codes: Mapping[str, Code]
) -> Held:
    """The output of a convolution, (out, H', W'); a shut output is the byte that stands for 0."""
    weight = step.weight.numpy().astype(np.float64)  # products and sums of whole numbers are exact in float64
    x = bytes_of(values[step.input]).astype(np.float64)
    if step.in_site is not None:
        x = x[masks[step.in_site]]
        weight = weight[:, masks[step.in_site]]
    (rows, columns), zero = step.padding, codes[step.input].zero
    x = np.pad(x, ((0, 0), (rows, rows), (columns, columns)), constant_values=zero)
    windows = np.lib.stride_tricks.sliding_window_view(x, weight.shape[2:], axis=(1, 2))
    windows = windows[:, :: step.stride, :: step.stride]
    sums = np.tensordot(weight, windows, axes=((1, 2, 3), (0, 3, 4)))
    out = sums.astype(F) * step.scale.numpy()[:, None, None] + step.bias.numpy()[:, None, None]
    if step.residual is not None:
        out = out + values[step.residual].astype(F) * step.residual_scale.numpy()[:, None, None]
    made = to_held(out, codes[step.output], step.low)
    if step.out_site is not None:
        made[~masks[step.out_site]] = codes[step.output].zero
    return made


def pooled(step: MaxPool, x: Held) -> Bytes:
    """The largest byte of each window; the border is never the largest."""
    assert x.dtype == np.uint8
    around = ((0, 0), (step.padding, step.padding), (step.padding, step.padding))
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(x, around), (step.kernel, step.kernel), axis=(1, 2))
    largest: Bytes = windows[:, :: step.stride, :: step.stride].max(axis=(3, 4))
    return largest


def means(x: Held, code: Code) -> Floats:
    """The mean of each channel: sums of bytes and of fine bytes, each rounded to float32, times one float32."""
    pixels = x.shape[1] * x.shape[2]
    sums = (bytes_of(x).astype(np.int64).sum(axis=(1, 2)) - code.zero * pixels).astype(F)
    if code.fine:
        sums = sums + ((x % 256).astype(np.int64).sum(axis=(1, 2)) - 128 * pixels).astype(F) / F(256)
    return sums * (code.step / pixels).numpy().astype(F)


def decided(step: Decide, x: Held, code: Code) -> npt.NDArray[np.bool_]:
    """The mask of a gate."""
    rule = step.rule
    assert rule is not None
    hidden_weight, hidden_bias, weight, bias = (tensor.detach().numpy().astype(F) for tensor in rule)
    hidden = np.maximum(hidden_bias + dots(hidden_weight, means(x, code)), F(0))
    return (bias + dots(weight, hidden)) >= 0


def dots(rows: Floats, vector: Floats) -> Floats:
    """The dot product of each row with a vector: 16 partial sums, which are then halved."""
    padding = -len(vector) % LANES
    rows, vector = np.pad(rows, ((0, 0), (0, padding))), np.pad(vector, (0, padding))
    sums = np.zeros((len(rows), LANES), F)
    for start in range(0, len(vector), LANES):
        sums = sums + rows[:, start : start + LANES] * vector[start : start + LANES]
    half = LANES // 2
    while half:
        sums = sums[:, :half] + sums[:, half : 2 * half]
        half //= 2
    return sums[:, 0]
