"""Looks at the values of a plan in float32, on the images that int8 is calibrated on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_dc.compiled.eager import EagerRun
from ssl_dc.compiled.int8_plan import Code, encoded
from ssl_dc.compiled.plan import Plan
from ssl_dc.compiled.steps.base import Step
from ssl_dc.compiled.steps.layers import Conv
from ssl_dc.compiled.steps.pooling import Mean

IMAGES_AT_ONCE = 32
SAMPLES = 1024
"""Elements of a value that are looked at for each image."""
PIXELS = 32
"""Outputs of a convolution whose windows are looked at for each image."""
INPUTS_AT_ONCE = 8
"""Inputs of a convolution that are looked at together."""
COLUMNS = 576
"""Weights of an output whose second moments are taken together: those of 64 channels, for 3x3 pixels."""


@dataclass
class Seen:
    """What was seen of a value.

    Attributes:
        shape: (channels, H, W) with all channels kept.
        lows: The smallest element of each channel, at most 0, (channels,).
        highs: The largest element of each channel, at least 0, (channels,).
        samples: Elements of each image.
        channels: The channel of each of these.
    """

    shape: tuple[int, ...]
    lows: Tensor = field(init=False)
    highs: Tensor = field(init=False)
    samples: list[Tensor] = field(default_factory=list)
    channels: list[Tensor] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Begin with nothing."""
        self.lows, self.highs = torch.zeros(self.shape[0]), torch.zeros(self.shape[0])

    def add(self, value: Tensor, channels: Tensor) -> None:
        """Look at a value (1, kept channels, H, W), given the indices of its channels."""
        if not value.numel():
            return
        self.lows[channels] = torch.minimum(self.lows[channels], value.amin(dim=(0, 2, 3)))
        self.highs[channels] = torch.maximum(self.highs[channels], value.amax(dim=(0, 2, 3)))
        every = max(1, value.numel() // SAMPLES)
        self.samples.append(value.flatten()[::every].clone())
        self.channels.append(channels.repeat_interleave(value.shape[2] * value.shape[3])[::every])


def chunks(plan: Plan, images: Tensor, budgets: Sequence[float | None]) -> Iterator[Tensor]:
    """The images in chunks. The plan's dial is turned to the budget of each chunk, and back in the end.

    Args:
        plan: The plan.
        images: (n, 3, H, W).
        budgets: Each is tried on its share of the images.
    """
    dial = plan.dial
    before = None if dial is None else dial.budget
    for number, budget in enumerate(budgets):
        if dial is not None:
            dial.budget = budget
        share = images[number :: len(budgets)]
        yield from share.split(IMAGES_AT_ONCE) if len(share) else ()
    if dial is not None:
        dial.budget = before


def observed(plan: Plan, images: Tensor, budgets: Sequence[float | None]) -> dict[str, Seen]:
    """What each value is like on the images, at the budgets that :func:`chunks` gives them."""
    seen = {plan.input: Seen(tuple(images.shape[1:]))}
    for chunk in chunks(plan, images, budgets):
        for image in chunk.split(1):
            seen[plan.input].add(image, torch.arange(image.shape[1]))
        _Watched(plan, seen)(chunk)
    return seen


class _Watched(EagerRun):
    """A run whose values are looked at."""

    def __init__(self, plan: Plan, seen: dict[str, Seen]) -> None:
        super().__init__(plan)
        self._seen = seen

    def value(self, step: Step, values: Mapping[str, Any], kept: Mapping[str, Tensor]) -> Any:
        value = super().value(step, values, kept)
        if not isinstance(step, Mean):
            site = step.out_site if isinstance(step, Conv) else None
            channels = step.weight.shape[0] if isinstance(step, Conv) else value.shape[1]
            record = self._seen.setdefault(step.output, Seen((channels, *value.shape[2:])))
            record.add(value, torch.arange(value.shape[1]) if site is None else kept[site])
        return value


class Moments:
    """What the weights of a convolution are multiplied with: windows (columns,) in the order of ``weight[0].flatten()``.

    Args:
        step: The convolution.

    Attributes:
        images: How many images there were.
    """

    def __init__(self, step: Conv) -> None:
        self._step = step
        self._columns = step.weight[0].numel()
        self._draw = torch.Generator().manual_seed(0)
        self._sum = torch.zeros(self._columns, dtype=torch.float64)
        sizes = [len(block) for block in torch.arange(self._columns).split(COLUMNS)]
        self._windows = [_Sums(size) for size in sizes]
        self._means = [_Sums(size) for size in sizes]
        self._waiting: list[Tensor] = []
        self.images = 0

    def add(self, x: Tensor) -> None:
        """Look at an input (channels, H, W) in bytes, less the byte of 0."""
        self._waiting.append(x)
        if len(self._waiting) == INPUTS_AT_ONCE:
            self.multiply()

    def multiply(self) -> None:
        """Look at the inputs that wait, and forget them: many at once are faster, and take memory."""
        if not self._waiting:
            return
        taps = self._taps(torch.stack(self._waiting))
        self.images += len(self._waiting)
        self._waiting.clear()
        means = torch.stack([tap.mean(dim=(2, 3)) for tap in taps], dim=2).flatten(1)
        self._sum += means.double().sum(dim=0)
        for sums, vectors in ((self._windows, self._some_windows(taps)), (self._means, means)):
            for block, columns in zip(sums, vectors.split(COLUMNS, dim=1), strict=True):
                block.add(columns)

    @property
    def mean(self) -> Tensor:
        """The mean window of the inputs, (columns,) float64."""
        return self._sum / max(1, self.images)

    def blocks(self) -> list[Tensor]:
        """The covariances of the windows in bytes, for blocks of columns, (size, size) float64 each.

        That of the images' mean windows is added: a gate sees means over the pixels, and a rounded weight is off in all
        pixels alike.
        """
        return [pair[0].covariance + pair[1].covariance for pair in zip(self._windows, self._means, strict=True)]

    def _some_windows(self, taps: Sequence[Tensor]) -> Tensor:
        """The windows of some outputs, (n, columns); the same outputs of each input."""
        outputs = taps[0].shape[2] * taps[0].shape[3]
        every = outputs <= PIXELS
        chosen = torch.arange(outputs) if every else torch.randint(outputs, (PIXELS,), generator=self._draw)
        windows = torch.stack([tap.flatten(2)[:, :, chosen] for tap in taps], dim=2)  # (inputs, channels, taps, outputs)
        return windows.flatten(1, 2).transpose(1, 2).flatten(0, 1)

    def _taps(self, x: Tensor) -> list[Tensor]:
        """What each tap of the kernel is multiplied with, (n, channels, H', W') each."""
        step = self._step
        (rows, columns), (height, width) = step.padding, step.weight.shape[2:]
        padded = F.pad(x, (columns, columns, rows, rows))
        down, right = padded.shape[2] - height + 1, padded.shape[3] - width + 1
        return [
            padded[:, :, row : row + down : step.stride, column : column + right : step.stride]
            for row in range(height)
            for column in range(width)
        ]


class _Sums:
    """Sums of vectors and of their products."""

    def __init__(self, size: int) -> None:
        self._number = 0
        self._sum = torch.zeros(size, dtype=torch.float64)
        self._products = torch.zeros(size, size, dtype=torch.float64)

    def add(self, vectors: Tensor) -> None:
        """Add vectors (n, size)."""
        self._number += len(vectors)
        self._sum += vectors.double().sum(dim=0)
        self._products += vectors.T @ vectors

    @property
    def covariance(self) -> Tensor:
        """(size, size) float64; 0 without vectors."""
        number = max(1, self._number)
        mean = self._sum / number
        return self._products / number - torch.outer(mean, mean)


def multiplied(
    plan: Plan, images: Tensor, budgets: Sequence[float | None], codes: Mapping[str, Code]
) -> dict[Step, Moments]:
    """What each convolution is multiplied with on the images, at the budgets that :func:`chunks` gives them."""
    moments: dict[Step, Moments] = {step: Moments(step) for step in plan.steps if isinstance(step, Conv)}
    for chunk in chunks(plan, images, budgets):
        _Multiplied(plan, codes, moments)(chunk)
    return moments


class _Multiplied(EagerRun):
    """A run that looks at the inputs of convolutions."""

    def __init__(self, plan: Plan, codes: Mapping[str, Code], moments: Mapping[Step, Moments]) -> None:
        super().__init__(plan)
        self._codes, self._moments = codes, moments

    def _compute(self, step: Step) -> None:
        super()._compute(step)
        if isinstance(step, Conv):
            self._moments[step].multiply()

    def value(self, step: Step, values: Mapping[str, Any], kept: Mapping[str, Tensor]) -> Any:
        if isinstance(step, Conv):
            x, code = values[step.input][0], self._codes[step.input]
            if step.in_site is not None:
                whole = x.new_zeros(step.weight.shape[1], *x.shape[1:])
                whole[kept[step.in_site]] = x
                x = whole
            self._moments[step].add(encoded(x, code) - code.zero)
        return super().value(step, values, kept)
