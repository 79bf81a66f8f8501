"""Which values of a traced network can be gated channel by channel, and what their gates save."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import fx, nn

from ssl_dc_timm.attention import attended, heads_of, layers_before
from ssl_dc_timm.layer_graph import LayerGraph, channel_axis
from ssl_dc_timm.operations import (
    CHANNELWISE_LAYERS,
    OPEN_FUNCTIONS,
    OPEN_METHODS,
    POINTWISE_FUNCTIONS,
    POINTWISE_LAYERS,
    POINTWISE_METHODS,
    PRODUCTS,
    SUMS,
    calls,
    channels_of,
    groups_of,
    has_bias,
    is_activation,
    maps_zero_to_zero,
)
from ssl_dc_timm.trace import BATCH


@dataclass(frozen=True)
class Candidate:
    """A value that may become a channel site, and the layers that compute what shut entries do not need.

    Attributes:
        value: The value.
        axis: The axis of its channels.
        entries: Width of the mask.
        rows: Layers that need no rows.
        columns: Layers that need no columns.
        whole: Layers that need neither: depthwise and grouped convolutions, and the products of attention.
        macs: What all these layers cost together.
    """

    value: fx.Node
    axis: int
    entries: int
    rows: frozenset[fx.Node]
    columns: frozenset[fx.Node]
    whole: frozenset[fx.Node]
    macs: int

    @property
    def layers(self) -> frozenset[fx.Node]:
        """All layers that the mask saves a part of."""
        return self.rows | self.columns | self.whole

    def claims(self) -> set[tuple[str, fx.Node]]:
        """What no other site may save as well."""
        rows = {("rows", node) for node in self.rows | self.whole}
        return rows | {("columns", node) for node in self.columns | self.whole}


class ChannelSearch:
    """Searches the values that can be gated channel by channel.

    Args:
        graph: The network.
    """

    def __init__(self, graph: LayerGraph) -> None:
        self.graph, self.network = graph, graph.network

    def chosen(self) -> list[Candidate]:
        """The candidates that save most, of which no two save the same."""
        chosen: list[Candidate] = []
        claimed: set[tuple[str, fx.Node]] = set()
        candidates = sorted(
            filter(self._is_in_a_block, self._candidates()),
            key=lambda each: (-each.macs, -each.entries, -self.network.index[each.value]),
        )
        for candidate in candidates:
            claims = candidate.claims()
            if not claims & claimed:
                claimed |= claims
                chosen.append(candidate)
        return chosen

    def _is_in_a_block(self, candidate: Candidate) -> bool:
        """Whether something goes around the value, or the block narrows behind it, as an inverted bottleneck does."""
        start = self.graph.cut_before(self.graph.in_order(candidate.layers)[0])
        shape = self.network.shape(start)
        if start is self.network.images or len(shape) < 3 or shape[0] != BATCH:
            return False
        after, last = self.network.index[start], self.network.index[candidate.value]
        if not any(after < self.network.index[cut] <= last for cut in self.graph.cuts):
            return True
        width = self.network.shape(candidate.value)[candidate.axis]
        main = max(candidate.columns, key=self.graph.macs)
        return width >= shape[channel_axis(self.network, start)] and width > channels_of(self.network.module(main), "out")

    def _candidates(self) -> Iterator[Candidate]:
        groups = {
            layer.groups
            for layer in map(self.network.module, self.graph.counted)
            if isinstance(layer, nn.Conv2d) and 1 < layer.groups < layer.in_channels
        }
        heads = {heads_of(self.graph, node) for node in self.graph.counted if self.graph.is_products(node)}
        for node in self.network.nodes:
            shape = self.network.shape(node)
            if not self.network.is_of_images(node) or node is self.network.images or len(shape) < 3 or shape[0] != BATCH:
                continue
            for axis in {1, len(shape) - 1} if len(shape) == 4 else {len(shape) - 1}:
                channels = shape[axis]
                if torch.Size(shape).numel() == BATCH * channels:  # one position, as inside of squeeze-and-excitation
                    continue
                for entries in {
                    channels,
                    *(each for each in groups | heads if 1 < each < channels and channels % each == 0),
                }:
                    candidate = self._candidate(node, axis, entries)
                    if candidate is not None:
                        yield candidate

    def _candidate(self, value: fx.Node, axis: int, entries: int) -> Candidate | None:
        reach = self._reach(value, axis, entries)
        if reach is None:
            return None
        columns, after, partners = reach
        rows, whole = self._growth({value: axis}, entries)
        if not columns or not (rows or whole):
            return None
        more_rows, more_whole = self._growth(partners, entries)
        rows, whole = rows | more_rows, whole | more_whole | after
        macs = sum(map(self.graph.macs, rows | whole | columns))
        return Candidate(value, axis, entries, frozenset(rows), frozenset(columns), frozenset(whole), macs)

    def _reach(
        self, value: fx.Node, axis: int, entries: int
    ) -> tuple[set[fx.Node], set[fx.Node], dict[fx.Node, int]] | None:
        """Follow the zeros of shut entries to the layers that read them.

        Returns:
            The layers whose columns are not needed, the grouped convolutions of which whole groups are not needed, and the
            values that are multiplied with zeros, each with the axis of its channels. None if the zeros do not stay zeros
            up to the layers, or reach the end of the network.
        """
        zero = {value: axis}
        columns: set[fx.Node] = set()
        whole: set[fx.Node] = set()
        partners: dict[fx.Node, int] = {}
        waiting = self._queue(value.users)
        seen: set[fx.Node] = set()
        while waiting:
            node = self.network.nodes[heapq.heappop(waiting)]
            if node in seen or not (self.network.is_of_images(node) or node.op == "output"):
                continue  # what is no tensor is its shape
            seen.add(node)
            there = {zero[each] for each in node.all_input_nodes if each in zero}
            if len(there) > 1:
                return None
            here = there.pop()
            if self.graph.is_weighted(node):
                if not self.graph.reads_axis(node, here):
                    return None
                layer = self.network.module(node)
                if groups_of(layer) == 1:
                    columns.add(node)
                    continue
                if groups_of(layer) % entries or has_bias(layer):
                    return None
                whole.add(node)
                zero[node] = here
            else:
                after = self._zeros_after(node, zero, here)
                if after is None:
                    return None
                zero[node] = after
                partners |= dict.fromkeys(self._partners(node, zero, here), here)
            for user in node.users:
                heapq.heappush(waiting, self.network.index[user])
        return columns, whole, partners

    def _queue(self, nodes: Iterable[fx.Node]) -> list[int]:
        queue = [self.network.index[node] for node in nodes]
        heapq.heapify(queue)
        return queue

    def _zeros_after(self, node: fx.Node, zero: Mapping[fx.Node, int], axis: int) -> int | None:
        """The axis of the channels of zeros in what a node makes of channels of zeros; None if they do not stay zeros."""
        layer = self.network.module(node)
        if layer is not None:
            stays = isinstance(layer, POINTWISE_LAYERS) or (is_activation(layer) and maps_zero_to_zero(layer))
            return axis if stays or (axis == 1 and isinstance(layer, CHANNELWISE_LAYERS)) else None
        if calls(node, POINTWISE_FUNCTIONS, POINTWISE_METHODS):
            return axis
        if calls(node, (torch.mean,), {"mean"}):
            return self._axis_after_mean(node, axis)
        operands = self.graph.operands(node)
        if calls(node, PRODUCTS, {"mul", "mul_"}):
            return (
                axis
                if self.network.shape(node) == self.network.shape(next(each for each in operands if each in zero))
                else None
            )
        if calls(node, SUMS, {"add", "add_"}) and len(operands) == 2 and all(each in zero for each in operands):
            return axis
        return None

    def _axis_after_mean(self, node: fx.Node, axis: int) -> int | None:
        dims = node.kwargs.get("dim", node.args[1] if len(node.args) > 1 else None)
        read = self.network.shape(node.all_input_nodes[0])
        if not isinstance(dims, (int, tuple, list)):
            return None
        reduced = {int(dim) % len(read) for dim in ([dims] if isinstance(dims, int) else dims)}  # type: ignore[call-overload]
        if axis in reduced:
            return None
        return axis - (0 if len(self.network.shape(node)) == len(read) else sum(dim < axis for dim in reduced))

    def _partners(self, node: fx.Node, zero: Mapping[fx.Node, int], axis: int) -> list[fx.Node]:
        """What a node multiplies with channels of zeros, and nothing else reads."""
        if not calls(node, PRODUCTS, {"mul", "mul_"}):
            return []
        channels = self.network.shape(node)[axis]
        return [
            each
            for each in self.graph.operands(node)
            if each not in zero and set(each.users) == {node} and self.graph.size(each, node, axis) == channels
        ]

    def _growth(self, idle: Mapping[fx.Node, int], entries: int) -> tuple[set[fx.Node], set[fx.Node]]:
        """Follow values of which shut entries are not needed back to the layers that make them.

        Args:
            idle: The values, each with the axis of its channels.
            entries: Width of the mask.

        Returns:
            The layers whose rows are not needed, and the layers of which whole groups are not needed.
        """
        axes = dict(idle)
        passed: set[tuple[fx.Node, fx.Node]] = set()
        rows: set[fx.Node] = set()
        whole: set[fx.Node] = set()
        waiting = [-self.network.index[node] for node in axes]
        heapq.heapify(waiting)
        seen: set[fx.Node] = set()
        while waiting:
            node = self.network.nodes[-heapq.heappop(waiting)]
            if node in seen or not (node in idle or self._only_for(node, passed)):
                continue
            seen.add(node)
            axis = axes[node]
            if self.graph.is_weighted(node):
                layer = self.network.module(node)
                if node in self.graph.stem or not self.graph.makes_axis(node, axis) or channels_of(layer, "out") % entries:
                    continue
                grouped = groups_of(layer) > 1 and groups_of(layer) % entries == 0
                (whole if grouped else rows).add(node)
                sources = {node.all_input_nodes[0]: axis} if grouped else {}
            elif (products := attended(self.graph, node, axis)) is not None and heads_of(self.graph, products) == entries:
                layers = layers_before(self.graph, products)
                if layers:
                    whole.add(products)
                    rows |= layers
                continue
            else:
                sources = self._channelwise_sources(node, axis)
            for source, there in sources.items():
                if self.network.is_of_images(source) and axes.setdefault(source, there) == there:
                    passed.add((node, source))
                    heapq.heappush(waiting, -self.network.index[source])
        return rows, whole

    def _only_for(self, node: fx.Node, passed: set[tuple[fx.Node, fx.Node]]) -> bool:
        """Whether all that reads a value, except for its shape, is idle where the value is."""
        return all((user, node) in passed for user in node.users if user.op == "output" or self.network.is_of_images(user))

    def _channelwise_sources(self, node: fx.Node, axis: int) -> dict[fx.Node, int]:
        """The values that a node makes its channels of, channel by channel, each with the axis of its channels."""
        layer = self.network.module(node)
        if layer is not None:
            pointwise = isinstance(layer, POINTWISE_LAYERS) or is_activation(layer)
            by_channel = axis == 1 and isinstance(layer, (*CHANNELWISE_LAYERS, nn.BatchNorm2d))
            return {node.all_input_nodes[0]: axis} if pointwise or by_channel else {}
        if calls(node, (*POINTWISE_FUNCTIONS, *OPEN_FUNCTIONS), POINTWISE_METHODS | OPEN_METHODS):
            return {node.all_input_nodes[0]: axis}
        if calls(node, PRODUCTS, {"mul", "mul_"}):
            channels = self.network.shape(node)[axis]
            return {each: axis for each in self.graph.operands(node) if self.graph.size(each, node, axis) == channels}
        if calls(node, SUMS, {"add", "add_"}) and len(self.graph.operands(node)) == 1:  # a sum of two values ends a branch
            return {self.graph.operands(node)[0]: axis}
        return {}
