"""A network as a list of steps, the form in which it is fused, slimmed and run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from torch import Tensor, nn

from ssl_dc.gating.base import Gate
from ssl_dc.gating.sites import GateSite
from ssl_dc.routes import Budget


@dataclass(frozen=True, kw_only=True, eq=False)
class Step:
    """One computation.

    Attributes:
        output: Name of the value that it makes; every value has one step, or two of which one runs (``when``).
        when: A branch site: the step runs only for an image whose mask there is open; None runs always.
        unless: A branch site: the step runs only where it is shut.
    """

    output: str
    when: str | None = None
    unless: str | None = None

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the values that it reads."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True, eq=False)
class Conv(Step):
    """A convolution with bias, and what follows it: + residual, then relu.

    Attributes:
        layer: Name of the layer in the backbone.
        weight: (out, in, height, width).
        bias: (out,).
        residual: Value that is added.
        in_site: Channel site whose mask says which inputs are there at all; the others are 0.
        out_site: Channel site whose mask says which outputs are wanted; the others are 0.
    """

    input: str
    layer: str
    weight: Tensor
    bias: Tensor
    stride: int
    padding: tuple[int, int]
    residual: str | None = None
    relu: bool = False
    in_site: str | None = None
    out_site: str | None = None

    @property
    def inputs(self) -> tuple[str, ...]:
        """What is convolved, and the residual."""
        return (self.input,) if self.residual is None else (self.input, self.residual)

    def shape(self, shape: Sequence[int]) -> tuple[int, int, int, int]:
        """Shape (N, out, H', W') of the output, all outputs kept, for an input of shape (N, in, H, W)."""
        height, width = (
            (size + 2 * padding - kernel) // self.stride + 1
            for size, padding, kernel in zip(shape[2:], self.padding, self.weight.shape[2:], strict=True)
        )
        return shape[0], self.weight.shape[0], height, width


@dataclass(frozen=True, kw_only=True, eq=False)
class Norm(Step):
    """A batch norm in evaluation mode."""

    input: str
    norm: nn.BatchNorm2d

    @property
    def inputs(self) -> tuple[str, ...]:
        """What is normalised."""
        return (self.input,)


@dataclass(frozen=True, kw_only=True, eq=False)
class Relu(Step):
    """max(0, input); with ``relu`` False the input as it is, which is what a shut branch leaves of a sum."""

    input: str
    relu: bool = True

    @property
    def inputs(self) -> tuple[str, ...]:
        """What is rectified."""
        return (self.input,)


@dataclass(frozen=True, kw_only=True, eq=False)
class Add(Step):
    """Sum of two values of one shape."""

    left: str
    right: str

    @property
    def inputs(self) -> tuple[str, ...]:
        """Both."""
        return (self.left, self.right)


@dataclass(frozen=True, kw_only=True, eq=False)
class MaxPool(Step):
    """Maximum over windows."""

    input: str
    kernel: int
    stride: int
    padding: int

    @property
    def inputs(self) -> tuple[str, ...]:
        """What is pooled."""
        return (self.input,)


@dataclass(frozen=True, kw_only=True, eq=False)
class Mean(Step):
    """Mean over the pixels: (N, C, H, W) to (N, C)."""

    input: str

    @property
    def inputs(self) -> tuple[str, ...]:
        """What is averaged."""
        return (self.input,)


@dataclass(frozen=True, kw_only=True, eq=False)
class Decide(Step):
    """A gate's decision; ``output`` is the site's name, and no value.

    Attributes:
        input: What the gate looks at.
        site: The site.
        gate: The gate.
        budget: What the thresholds are for.
    """

    input: str
    site: GateSite
    gate: Gate
    budget: Budget = None

    @property
    def inputs(self) -> tuple[str, ...]:
        """What the gate looks at."""
        return (self.input,)

    @property
    def threshold(self) -> Tensor:
        """The thresholds of the gate at the budget."""
        return self.gate.threshold_for(self.budget)


@dataclass(frozen=True, kw_only=True, eq=False)
class Mask(Step):
    """A value times a site's mask, where no convolution takes the mask over."""

    input: str
    site: GateSite

    @property
    def inputs(self) -> tuple[str, ...]:
        """What is masked."""
        return (self.input,)


@dataclass(frozen=True, kw_only=True, eq=False)
class Call(Step):
    """Whatever else a network does, left to torch.

    Attributes:
        function: Called with the values of ``arguments``.
        arguments: Names of the values, in the function's order.
    """

    function: Callable[..., Any]
    arguments: tuple[str, ...]

    @property
    def inputs(self) -> tuple[str, ...]:
        """The arguments."""
        return self.arguments


@dataclass(frozen=True, eq=False)
class Plan:
    """A network as steps.

    Attributes:
        steps: In the order in which they run.
        output: Name of the value that is the features.
        input: Name of the value that is the images.
    """

    steps: tuple[Step, ...]
    output: str
    input: str = "images"

    @property
    def sites(self) -> list[GateSite]:
        """The sites with a gate, in the order in which they are decided."""
        return [step.site for step in self.steps if isinstance(step, Decide)]

    def readers(self, value: str) -> list[Step]:
        """The steps that read a value."""
        return self._readers.get(value, [])

    def makers(self, value: str) -> list[Step]:
        """The steps that make a value: none for the images, two where a branch is gated."""
        return self._makers.get(value, [])

    def read_once(self, value: str) -> bool:
        """Whether just one step reads a value, and it is not the output."""
        return len(self.readers(value)) == 1 and value != self.output

    def exchanged(self, by: Mapping[Step, Sequence[Step]]) -> Plan:
        """The plan with other steps, or none, in the place of some."""
        return replace(self, steps=tuple(new for old in self.steps for new in by.get(old, (old,))))

    @cached_property
    def _readers(self) -> dict[str, list[Step]]:
        readers: dict[str, list[Step]] = {}
        for step in self.steps:
            for value in step.inputs:
                readers.setdefault(value, []).append(step)
        return readers

    @cached_property
    def _makers(self) -> dict[str, list[Step]]:
        makers: dict[str, list[Step]] = {}
        for step in self.steps:
            if not isinstance(step, Decide):
                makers.setdefault(step.output, []).append(step)
        return makers
