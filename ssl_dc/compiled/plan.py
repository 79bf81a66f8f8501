"""A network as a list of steps, which is what gets fused, made static and run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from torch import Tensor, nn

from ssl_dc.backbones.attention import AttentionProducts
from ssl_dc.compiled.activations import Activation
from ssl_dc.gating.base import Gate, PooledRule
from ssl_dc.gating.sites import GateSite


@dataclass(frozen=True, kw_only=True, eq=False)
class Step:
    """One computation.

    Attributes:
        output: Name of the value that it computes. A value has one step, or two of which one runs for each image.
        when: Name of a branch site; the step runs only for images whose mask there is open. None: it always runs.
        unless: Name of a branch site; the step runs only for images whose mask there is shut. None: it always runs.
    """

    output: str
    when: str | None = None
    unless: str | None = None

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the values that the step reads."""
        raise NotImplementedError


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
class SplitHeads(Step):
    """The queries, the keys or the values of each attention head: (N, T, heads * span) to (N, heads, T, size).

    Attributes:
        span: Channels of a head in the input.
        first: The first of them that is taken.
        size: How many are taken.
    """

    input: str
    span: int
    first: int
    size: int

    @property
    def inputs(self) -> tuple[str, ...]:
        """The value with all channels of a head side by side."""
        return (self.input,)


@dataclass(frozen=True, kw_only=True, eq=False)
class Products(Step):
    """Softmax attention between positions: queries (N, heads, T, D) with keys, and the resulting weights with values.

    Attributes:
        queries: Name of a value (N, heads, T, D).
        keys: Name of a value (N, heads, S, D).
        values: Name of a value (N, heads, S, E).
        products: Called with the queries, the keys and the values, and the bias if there is one.
        bias: Name of what is added before the softmax; None: nothing is.
    """

    queries: str
    keys: str
    values: str
    products: AttentionProducts
    bias: str | None = None

    @property
    def inputs(self) -> tuple[str, ...]:
        """The queries, the keys, the values, and the bias."""
        return (self.queries, self.keys, self.values, *([] if self.bias is None else [self.bias]))


@dataclass(frozen=True, kw_only=True, eq=False)
class JoinHeads(Step):
    """The heads side by side: (N, heads, T, E) to (N, T, heads * E)."""

    input: str

    @property
    def inputs(self) -> tuple[str, ...]:
        """The value of each head."""
        return (self.input,)


@dataclass(frozen=True, kw_only=True, eq=False)
class Attention(Step):
    """Attention from the layers before it to tokens (N, T, heads * E): heads are split, multiplied and joined.

    Attributes:
        queries: How the queries are taken out of a value.
        keys: How the keys are.
        values: How the values are.
        products: What is called with all three, each (N, heads, T, D).
    """

    queries: SplitHeads
    keys: SplitHeads
    values: SplitHeads
    products: AttentionProducts

    @property
    def parts(self) -> tuple[SplitHeads, SplitHeads, SplitHeads]:
        """Queries, keys and values."""
        return self.queries, self.keys, self.values

    @property
    def inputs(self) -> tuple[str, ...]:
        """The values that hold queries, keys and values: one if one layer makes all three."""
        return tuple(dict.fromkeys(part.input for part in self.parts))


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
class Subsample(Step):
    """Every ``stride``-th pixel of every ``stride``-th row, from the first on."""

    input: str
    stride: int

    @property
    def inputs(self) -> tuple[str, ...]:
        """The value whose pixels are taken."""
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


@dataclass
class Dial:
    """The budget at which all gates of a plan decide. It may be turned between two calls.

    Attributes:
        budget: A share of the dense cost; None for the budget that the network was trained for.
    """

    budget: float | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Decide(Step):
    """The decision of a gate. ``output`` is the name of the site; no value is computed.

    Attributes:
        input: Name of the value that the gate decides on.
        site: The site.
        gate: The gate.
        dial: The budget of the route, the same object in all decisions of a plan.
        axis: The axis of the channels of the input: 1 in (N, C, H, W), -1 in (N, T, C) and (N, H, W, C). Tokens reach the
            gate as an image of one column, (N, C, T, 1).
    """

    input: str
    site: GateSite
    gate: Gate
    dial: Dial = field(default_factory=Dial)
    axis: int = 1

    @property
    def inputs(self) -> tuple[str, ...]:
        """The value that the gate decides on."""
        return (self.input,)

    @property
    def threshold(self) -> Tensor:
        """The thresholds of the gate at the budget, (channels,)."""
        return self.gate.threshold_for(self.dial.budget)

    @property
    def rule(self) -> PooledRule | None:
        """The decision at the budget as a rule on the means of the input; None if the gate has no such rule."""
        return self.gate.pooled_rule(self.threshold)


@dataclass(frozen=True, kw_only=True, eq=False)
class Mask(Step):
    """A value times the mask of a site, where no layer takes the mask over."""

    input: str
    site: GateSite

    @property
    def inputs(self) -> tuple[str, ...]:
        """The masked value."""
        return (self.input,)


@dataclass(frozen=True, kw_only=True, eq=False)
class Call(Step):
    """Any other operation, which torch computes.

    Attributes:
        function: Called with the values of ``arguments``.
        arguments: Names of the values, in the order of the function's parameters.
        of_shapes: Whether it depends on the shapes of its arguments only.
        moves: Whether it only arranges the elements of its first argument anew. The other arguments are sizes.
    """

    function: Callable[..., Any]
    arguments: tuple[str, ...]
    of_shapes: bool = False
    moves: bool = False

    @property
    def inputs(self) -> tuple[str, ...]:
        """The arguments."""
        return self.arguments


@dataclass(frozen=True, eq=False)
class Plan:
    """A network as steps.

    Attributes:
        steps: The steps in the order in which they run.
        output: Name of the features.
        input: Name of the images.
    """

    steps: tuple[Step, ...]
    output: str
    input: str = "images"

    @property
    def sites(self) -> list[GateSite]:
        """The sites that have a gate, in the order in which the gates decide."""
        return [step.site for step in self.steps if isinstance(step, Decide)]

    @property
    def dial(self) -> Dial | None:
        """The budget at which the gates decide; None for a plan without gates."""
        return next((step.dial for step in self.steps if isinstance(step, Decide)), None)

    def readers(self, value: str) -> list[Step]:
        """The steps that read a value."""
        return self._readers.get(value, [])

    def makers(self, value: str) -> list[Step]:
        """The steps that compute a value: none for the images, two where a branch is gated."""
        return self._makers.get(value, [])

    def read_once(self, value: str) -> bool:
        """Whether exactly one step reads a value, and the value is not the output."""
        return len(self.readers(value)) == 1 and value != self.output

    def exchanged(self, by: Mapping[Step, Sequence[Step]]) -> Plan:
        """The plan with some steps replaced by other steps, or by none."""
        return replace(self, steps=tuple(new for old in self.steps for new in by.get(old, (old,))))

    def with_dial(self, dial: Dial) -> Plan:
        """The plan with another dial in all decisions."""
        return self.exchanged({step: (replace(step, dial=dial),) for step in self.steps if isinstance(step, Decide)})

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


def last_reads(plan: Plan) -> dict[str, int]:
    """Index of the last step that reads each value.

    It is ``len(steps)`` for the output, and that of the producing step for a value that nothing reads.
    """
    last = {step.output: index for index, step in enumerate(plan.steps)}
    for index, step in enumerate(plan.steps):
        for value in step.inputs:
            last[value] = index
    last[plan.output] = len(plan.steps)
    return last
