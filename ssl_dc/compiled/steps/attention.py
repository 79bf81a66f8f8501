"""Softmax attention: its products between positions, and the heads that they are computed for."""

from __future__ import annotations

from dataclasses import dataclass

from ssl_dc.backbones.attention import AttentionProducts
from ssl_dc.compiled.steps.base import Step


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
