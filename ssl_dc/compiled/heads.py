"""Leaves out attention heads: the layers around attention compute only the heads that a mask opens.

Between the linear layers and the products a network arranges channels anew, with sizes that count all heads. These steps
are replaced by steps that take any number of heads. Which channels a head consists of is found by running the network's own
steps on the numbers of the channels.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ssl_dc.compiled.plan import Plan
from ssl_dc.compiled.steps.attention import Attention, JoinHeads, Products, SplitHeads
from ssl_dc.compiled.steps.base import Step
from ssl_dc.compiled.steps.call import Call
from ssl_dc.compiled.steps.elementwise import Pointwise
from ssl_dc.compiled.steps.gates import Mask
from ssl_dc.compiled.steps.layers import Linear
from ssl_dc.compiled.steps.normalisation import LayerNorm
from ssl_dc.gating.sites import Granularity

POSITIONS = 7
"""Positions of the values that the steps are run on."""


class _NotFoundError(Exception):
    """The steps around a mask are not those of attention whose heads can be left out."""


def pick_heads(plan: Plan, step: Step) -> Plan:
    """Turn a mask of attention heads into a choice of heads, in the layers before them, the products and the layers after.

    Nothing may lie between the layers and the products but steps that arrange channels anew, layer norms of each head, and
    functions of each number. Otherwise the plan stays as it is.
    """
    if not (isinstance(step, Mask) and step.site.granularity is Granularity.CHANNEL and step.site.axis != 1):
        return plan
    try:
        return _Attention(plan, step.input, step).with_heads_in_order()
    except _NotFoundError:
        return plan


def order_heads(plan: Plan, step: Step) -> Plan:
    """Let the layer before attention give its channels head by head, as :func:`pick_heads` does, where there is no mask."""
    if not isinstance(step, Products):
        return plan
    joined = step.output
    while len(readers := plan.readers(joined)) == 1 and isinstance(readers[0], Call) and readers[0].moves:
        joined = readers[0].output
    try:
        return _Attention(plan, joined).with_heads_in_order()
    except _NotFoundError:
        return plan


def fuse_attention(plan: Plan, step: Step) -> Plan:
    """Make the steps that split, multiply and join heads one step, if nothing lies between them."""
    if not isinstance(step, JoinHeads) or not plan.read_once(step.input):
        return plan
    (products,) = plan.makers(step.input)
    if not isinstance(products, Products) or products.bias is not None:
        return plan
    parts = [maker for value in products.inputs for maker in plan.makers(value)]
    splits = [part for part in parts if isinstance(part, SplitHeads) and plan.read_once(part.output)]
    if len(splits) < 3:
        return plan
    queries, keys, values = splits
    attention = Attention(
        output=step.output, queries=queries, keys=keys, values=values, products=products.products, when=step.when
    )
    return plan.exchanged({products: (), **dict.fromkeys(splits, ()), step: (attention,)})


@dataclass(frozen=True)
class _Part:
    """The queries, the keys or the values of attention.

    Attributes:
        layer: The linear layer that makes them.
        value: The name of the value (N, heads, T, D), before it is normalised.
        rows: The outputs of the layer that each head consists of, (heads, D).
        moving: The steps that arrange them.
        by_head: The steps after these, in order: each treats every head by itself.
    """

    layer: Linear
    value: str
    rows: Tensor
    moving: frozenset[Step]
    by_head: tuple[Step, ...]


class _Attention:
    """The steps between the linear layers in front of attention and its heads side by side.

    Args:
        plan: The plan.
        joined: Name of the value (N, T, heads * E) in which the heads are side by side.
        mask: The mask of the heads that reads this value; None: all heads are computed.

    Raises:
        _NotFoundError: If there are no such steps, or something else reads what they compute.
    """

    def __init__(self, plan: Plan, joined: str, mask: Mask | None = None) -> None:
        self.plan, self.mask = plan, mask
        self.heads = 0 if mask is None else mask.site.channels
        self.site = None if mask is None else mask.site.name
        self.products, self.joining = self._back_to_products(joined)
        if self.products.bias is not None or not self.joining:  # a bias may differ from head to head
            raise _NotFoundError
        names = (self.products.queries, self.products.keys, self.products.values)
        self.parts = [self._part(name) for name in names]
        self.layers = list(dict.fromkeys(part.layer for part in self.parts))
        self.width = self._check_joining()
        self.last: Step = self.joining[-1] if mask is None else mask
        inside = {self.products, self.last, *self.joining, *self.layers}
        inside |= {step for part in self.parts for step in (*part.moving, *part.by_head)}
        if any(reader not in inside for step in inside - {self.last} for reader in plan.readers(step.output)):
            raise _NotFoundError
        if plan.output in {step.output for step in inside}:
            raise _NotFoundError
        self.inside = inside

    def with_heads_in_order(self) -> Plan:
        """The plan with the channels of each head side by side; it computes only the heads that the mask opens."""
        before = [step for layer in self.layers for step in self._layer_and_parts(layer)]
        by_head = dict.fromkeys(step for part in self.parts for step in part.by_head)
        after = [step for step in self.joining if isinstance(step, Pointwise)]
        joined: list[Step] = [JoinHeads(output=f"{self.products.output}.joined", input=self.products.output)]
        for step in after:
            joined.append(replace(step, input=joined[-1].output))
        joined[-1] = replace(joined[-1], output=self.last.output)
        chosen = [*before, *by_head, self.products, *joined]  # after the decision
        return self.plan.exchanged({**dict.fromkeys(self.inside, ()), self.last: chosen, **self._readers_picked()})

    def _readers_picked(self) -> dict[Step, Sequence[Step]]:
        """The layers after the mask, with a choice of their inputs."""
        if self.mask is None:
            return {}
        picked: dict[Step, Sequence[Step]] = {}
        for reader in self.plan.readers(self.mask.output):
            if not isinstance(reader, Linear) or reader.in_site is not None:
                raise _NotFoundError
            picked[reader] = (replace(reader, in_site=self.site, in_span=self.width),)
        return picked

    def _layer_and_parts(self, layer: Linear) -> Iterator[Step]:
        """A layer whose outputs are ordered by heads, and the steps that take queries, keys or values from it."""
        parts = [part for part in self.parts if part.layer is layer]
        rows = torch.cat([part.rows for part in parts], dim=1)
        if not torch.equal(rows.flatten().sort().values, torch.arange(len(layer.weight))):
            raise _NotFoundError
        span = rows.shape[1]
        order = rows.flatten()
        yield replace(
            layer,
            weight=layer.weight[order],
            bias=layer.bias[order],
            out_site=self.site,
            out_span=1 if self.site is None else span,
        )
        first = 0
        for part in parts:
            size = part.rows.shape[1]
            yield SplitHeads(output=part.value, input=layer.output, span=span, first=first, size=size)
            first += size

    def _back_to_products(self, joined: str) -> tuple[Products, list[Step]]:
        """The products, and the steps between them and their heads side by side, in order."""
        between: list[Step] = []
        maker = self._maker(joined)
        while isinstance(maker, Pointwise) or (isinstance(maker, Call) and maker.moves):
            between.insert(0, maker)
            maker = self._maker(maker.inputs[0])
        if not isinstance(maker, Products):
            raise _NotFoundError
        return maker, between

    def _part(self, name: str) -> _Part:
        by_head: list[Step] = []
        while _is_by_head(maker := self._maker(name)):
            by_head.insert(0, maker)
            name = maker.inputs[0]
        value = name
        moving: set[Step] = set()
        while isinstance(maker := self._maker(name), Call) and maker.moves:
            moving.add(maker)
            name = maker.inputs[0]
        if not isinstance(maker, Linear) or maker.in_site is not None or maker.out_site is not None:
            raise _NotFoundError
        rows = self._rows(maker, value)
        if any(isinstance(step, LayerNorm) and step.weight.shape != rows.shape[1:] for step in by_head):
            raise _NotFoundError
        return _Part(maker, value, rows, frozenset(moving), tuple(by_head))

    def _rows(self, layer: Linear, value: str) -> Tensor:
        """The outputs of a layer that each head of a value (N, heads, T, D) consists of, (heads, D)."""
        outputs = len(layer.weight)
        numbers = torch.arange(POSITIONS * outputs).view(1, POSITIONS, outputs)
        moved = self._evaluated(value, {layer.output: numbers, **self._given(layer)})
        if moved.ndim == 4 and not self.heads:
            self.heads = moved.shape[1]
        if moved.ndim != 4 or moved.shape[:3] != (1, self.heads, POSITIONS):
            raise _NotFoundError
        rows = moved[0, :, 0]
        if not torch.equal(moved[0], rows[:, None] + outputs * torch.arange(POSITIONS)[:, None]):
            raise _NotFoundError
        return rows

    def _check_joining(self) -> int:
        """Channels of a head in front of the mask, where the heads must lie side by side."""
        shape = (1, self.heads, POSITIONS, self.parts[2].rows.shape[1])
        numbers = torch.arange(torch.Size(shape).numel()).view(shape)
        given = {name: value for layer in self.layers for name, value in self._given(layer).items()}
        joined = numbers
        known: dict[str, Any] = {self.products.output: numbers, **given}
        for step in self.joining:  # the functions of each number would change the numbers
            joined = joined if isinstance(step, Pointwise) else self._evaluated(step.output, known)
            known[step.output] = joined
        if not torch.equal(joined, numbers.transpose(1, 2).flatten(2)):
            raise _NotFoundError
        return shape[3]

    def _given(self, layer: Linear) -> dict[str, Tensor]:
        """The input of a layer, of which later steps take the size."""
        return {layer.input: torch.zeros(1, POSITIONS, layer.weight.shape[1])}

    def _evaluated(self, value: str, known: Mapping[str, Any]) -> Tensor:
        """A value, computed by calls from values that are known."""
        try:
            found = self._computed(value, dict(known))
        except _NotFoundError:
            raise
        except Exception as error:  # a stranger's function may raise anything at sizes that are not the network's
            raise _NotFoundError from error
        if not isinstance(found, Tensor):
            raise _NotFoundError
        return found

    def _computed(self, value: str, known: dict[str, Any]) -> Any:
        if value not in known:
            maker = self._maker(value)
            if not isinstance(maker, Call):
                raise _NotFoundError
            known[value] = maker.function(*(self._computed(argument, known) for argument in maker.arguments))
        return known[value]

    def _maker(self, value: str) -> Step:
        makers = self.plan.makers(value)
        if len(makers) != 1:
            raise _NotFoundError
        return makers[0]


def _is_by_head(step: Step) -> bool:
    """Whether a step on (N, heads, T, D) treats each head by itself, and all heads alike."""
    return isinstance(step, Pointwise) or (isinstance(step, LayerNorm) and step.axis == -1)
