"""Finds the gate sites of a traced network.

A channel site is a value inside a block that has two properties:

- Everything from some layers to the value is channelwise, so that a shut channel needs no row of those layers' weights.
- Everything from the value to some layers maps a channel of zeros to a channel of zeros, so that a shut channel needs no
  column of those layers' weights. Where such a channel is multiplied with another value, as in squeeze-and-excitation,
  the row of the layer that makes the other value is not needed either.

In front of the layers that combine all channels of a group, an entry of the mask may be a whole group: a group of a grouped
convolution, or an attention head.
"""

from __future__ import annotations

import heapq
import operator
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from os.path import commonpath
from typing import Any

import torch
import torch.nn.functional as F
from timm.layers import Conv2dSame, DropBlock2d, DropPath
from torch import Tensor, fx, nn

import ssl_dc
from ssl_dc_timm.strided import SkippingConv
from ssl_dc_timm.trace import BATCH, TracedNetwork

_WEIGHTED = (nn.Conv2d, Conv2dSame, SkippingConv, nn.Linear)
"""Layers whose output channel needs its row of the weight only, and whose input channel its column only."""

_COUNTED = (nn.Conv2d, nn.Linear, ssl_dc.AttentionProducts)
"""Layers that the cost model counts."""

_CHANNELWISE = (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)
"""Layers on (N, C, H, W) that treat each channel by itself, and map zeros to zeros."""

_POINTWISE = (nn.Identity, nn.Dropout, nn.Dropout2d, DropPath, DropBlock2d)
"""Layers that treat each value by itself, and map zeros to zeros."""

_NOT_POINTWISE = {"Softmax", "Softmin", "LogSoftmax", "Softmax2d", "GLU", "MultiheadAttention", "PReLU"}
"""Layers among the activations that mix values or have a weight for each channel."""

_ACTIVATIONS = ("torch.nn.modules.activation", "timm.layers.activations", "timm.layers.activations_me")

_FUNCTIONS = (F.relu, F.relu6, F.silu, F.gelu, F.hardswish, F.leaky_relu, F.mish, torch.relu, torch.tanh)
_NAMES = {"relu", "relu_", "tanh", "contiguous", "clone"}
"""Functions and methods that treat each value by itself, and map zeros to zeros."""

_OPEN_FUNCTIONS = (F.sigmoid, F.hardsigmoid, torch.sigmoid)
_OPEN_NAMES = {"sigmoid", "sigmoid_"}
"""The same that do not map zeros to zeros."""

_PRODUCTS = (operator.mul, operator.imul, torch.mul)
_SUMS = (operator.add, operator.iadd, torch.add)

_LAYOUT = {"reshape", "view", "permute", "transpose", "unbind", "contiguous", "chunk", "flatten"}
"""Methods that move values, between a layer and attention."""


@dataclass(frozen=True)
class FoundSite:
    """A gate site of a traced network.

    Attributes:
        name: What it is called: a layer and what an entry of the mask is, such as ``layer1.0.conv1.channels``.
        value: The value that is gated.
        reader: The one node that reads the gated value; None if all do.
        decides_on: The value that the gate decides on.
        input_axis: The axis of that value that has its channels.
        granularity: What one entry of the mask switches.
        entries: Width of the mask.
        axis: The axis of the value that has the channels.
        layers: The nodes of the layers whose cost the mask scales, in the order in which they run.
    """

    name: str
    value: fx.Node
    reader: fx.Node | None
    decides_on: fx.Node
    input_axis: int
    granularity: ssl_dc.Granularity
    entries: int
    axis: int
    layers: tuple[fx.Node, ...]


@dataclass(frozen=True)
class Branch:
    """A residual branch: from one value two ways lead to a sum.

    Attributes:
        start: The value.
        end: The sum.
        value: The summand that the branch makes.
        inside: The nodes of the branch.
        shortcut: The nodes of the other way.
    """

    start: fx.Node
    end: fx.Node
    value: fx.Node
    inside: frozenset[fx.Node]
    shortcut: frozenset[fx.Node]


@dataclass(frozen=True)
class _Candidate:
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
        return self.rows | self.columns | self.whole

    def claims(self) -> set[tuple[str, fx.Node]]:
        """What no other site may save as well."""
        rows = {("rows", node) for node in self.rows | self.whole}
        return rows | {("columns", node) for node in self.columns | self.whole}


class SiteFinder:
    """Finds the sites of one network.

    Args:
        network: The network.

    Attributes:
        branches: Its residual branches that have layers, in order.
    """

    def __init__(self, network: TracedNetwork) -> None:
        self.network = network
        self._cuts = network.cuts()
        self._calls = Counter(node.target for node in network.nodes if node.op == "call_module")
        self._stem = {node for node in network.nodes if self._is_weighted(node) and self._reads_images(node)}
        self._counted = {node for node in network.nodes if isinstance(network.module(node), _COUNTED)}
        self.branches = list(self._find_branches())

    def sites(self) -> list[FoundSite]:
        """The sites, in the order of the values that they gate."""
        found = [*map(self._channel_site, self._chosen()), *map(self._branch_site, self._whole_branches())]
        found.sort(key=lambda site: (self.network.index[site.value], site.reader is not None))
        names = Counter(site.name for site in found)
        return [
            replace(site, name=f"{site.layers[0].target}.{site.name}") if names[site.name] > 1 else site for site in found
        ]

    # channel sites

    def _channel_site(self, candidate: _Candidate) -> FoundSite:
        channels = self.network.shape(candidate.value)[candidate.axis]
        products = any(map(self._is_products, candidate.whole))
        kind = "heads" if products else ("channels" if candidate.entries == channels else "groups")
        layers = self._in_order(candidate.layers)
        return FoundSite(
            name=f"{layers[0].target}.{kind}",
            value=candidate.value,
            reader=None,
            decides_on=(start := self._cut_before(layers[0])),
            input_axis=channel_axis(self.network, start),
            granularity=ssl_dc.Granularity.CHANNEL,
            entries=candidate.entries,
            axis=candidate.axis,
            layers=layers,
        )

    def _chosen(self) -> list[_Candidate]:
        """The candidates that save most, of which no two save the same."""
        chosen: list[_Candidate] = []
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

    def _is_in_a_block(self, candidate: _Candidate) -> bool:
        """Whether something goes around the value, or the block narrows behind it, as an inverted bottleneck does."""
        start = self._cut_before(self._in_order(candidate.layers)[0])
        shape = self.network.shape(start)
        if start is self.network.images or len(shape) < 3 or shape[0] != BATCH:
            return False
        after, last = self.network.index[start], self.network.index[candidate.value]
        if not any(after < self.network.index[cut] <= last for cut in self._cuts):
            return True
        width = self.network.shape(candidate.value)[candidate.axis]
        main = max(candidate.columns, key=self._macs)
        return width >= shape[channel_axis(self.network, start)] and width > _channels(self.network.module(main), "out")

    def _candidates(self) -> Iterator[_Candidate]:
        groups = {
            layer.groups
            for layer in map(self.network.module, self._counted)
            if isinstance(layer, nn.Conv2d) and 1 < layer.groups < layer.in_channels
        }
        heads = {self._heads(node) for node in self._counted if self._is_products(node)}
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

    def _candidate(self, value: fx.Node, axis: int, entries: int) -> _Candidate | None:
        reach = self._reach(value, axis, entries)
        if reach is None:
            return None
        columns, after, partners = reach
        rows, whole = self._growth({value: axis}, entries)
        if not columns or not (rows or whole):
            return None
        more_rows, more_whole = self._growth(partners, entries)
        rows, whole = rows | more_rows, whole | more_whole | after
        macs = sum(map(self._macs, rows | whole | columns))
        return _Candidate(value, axis, entries, frozenset(rows), frozenset(columns), frozenset(whole), macs)

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
            if self._is_weighted(node):
                if not self._reads_axis(node, here):
                    return None
                layer = self.network.module(node)
                if _groups(layer) == 1:
                    columns.add(node)
                    continue
                if _groups(layer) % entries or _has_bias(layer):
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

    def _zeros_after(self, node: fx.Node, zero: Mapping[fx.Node, int], axis: int) -> int | None:
        """The axis of the channels of zeros in what a node makes of channels of zeros; None if they do not stay zeros."""
        layer = self.network.module(node)
        if layer is not None:
            stays = isinstance(layer, _POINTWISE) or (_is_activation(layer) and _maps_zero_to_zero(layer))
            return axis if stays or (axis == 1 and isinstance(layer, _CHANNELWISE)) else None
        if _calls(node, _FUNCTIONS, _NAMES):
            return axis
        if _calls(node, (torch.mean,), {"mean"}):
            return self._axis_after_mean(node, axis)
        operands = self._operands(node)
        if _calls(node, _PRODUCTS, {"mul", "mul_"}):
            return (
                axis
                if self.network.shape(node) == self.network.shape(next(each for each in operands if each in zero))
                else None
            )
        if _calls(node, _SUMS, {"add", "add_"}) and len(operands) == 2 and all(each in zero for each in operands):
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
        if not _calls(node, _PRODUCTS, {"mul", "mul_"}):
            return []
        channels = self.network.shape(node)[axis]
        return [
            each
            for each in self._operands(node)
            if each not in zero and set(each.users) == {node} and self._size(each, node, axis) == channels
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
            if self._is_weighted(node):
                layer = self.network.module(node)
                if node in self._stem or not self._makes_axis(node, axis) or _channels(layer, "out") % entries:
                    continue
                grouped = _groups(layer) > 1 and _groups(layer) % entries == 0
                (whole if grouped else rows).add(node)
                sources = {node.all_input_nodes[0]: axis} if grouped else {}
            elif (products := self._attended(node, axis)) is not None and self._heads(products) == entries:
                layers = self._layers_before(products)
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
            pointwise = isinstance(layer, _POINTWISE) or _is_activation(layer)
            by_channel = axis == 1 and isinstance(layer, (*_CHANNELWISE, nn.BatchNorm2d))
            return {node.all_input_nodes[0]: axis} if pointwise or by_channel else {}
        if _calls(node, (*_FUNCTIONS, *_OPEN_FUNCTIONS), _NAMES | _OPEN_NAMES):
            return {node.all_input_nodes[0]: axis}
        if _calls(node, _PRODUCTS, {"mul", "mul_"}):
            channels = self.network.shape(node)[axis]
            return {each: axis for each in self._operands(node) if self._size(each, node, axis) == channels}
        if _calls(node, _SUMS, {"add", "add_"}) and len(self._operands(node)) == 1:  # a sum of two values ends a branch
            return {self._operands(node)[0]: axis}
        return {}

    # attention

    def _attended(self, node: fx.Node, axis: int) -> fx.Node | None:
        """The products of attention whose heads a node lays side by side as tokens (N, T, C); None if it does not."""
        if (
            not _calls(node, (torch.flatten,), {"reshape", "view", "flatten"})
            or axis != 2
            or len(self.network.shape(node)) != 3
        ):
            return None
        source = node.all_input_nodes[0]
        if _calls(source, (), {"contiguous"}):
            source = source.all_input_nodes[0]
        moved = _calls(source, (torch.transpose,), {"transpose", "permute"}) and source.args[1:] in (
            (1, 2),
            (2, 1),
            (0, 2, 1, 3),
            ((0, 2, 1, 3),),
        )
        products = source.all_input_nodes[0] if moved else None
        if products is None or not self._is_products(products) or len(products.users) > 1:
            return None
        if not self._heads(products):
            return None
        batch, heads, tokens, width = self.network.shape(products)
        return products if self.network.shape(node) == (batch, tokens, heads * width) else None

    def _heads(self, products: fx.Node) -> int:
        """The heads of products of attention; 0 if queries, keys and values have not as many."""
        shapes = [self.network.shape(each) for each in (products, *_nodes(products.args[:3]))]
        same = all(len(shape) == 4 and shape[:2] == (BATCH, shapes[0][1]) for shape in shapes)
        return shapes[0][1] if same else 0

    def _layers_before(self, products: fx.Node) -> set[fx.Node]:
        """The layers that make queries, keys and values, if nothing else reads these; empty if they do not all qualify."""
        layers: set[fx.Node] = set()
        waiting = _nodes(products.args[:3])
        inside = {products}
        while waiting:
            node = waiting.pop()
            if node in inside:
                continue
            layer = self.network.module(node)
            if self._is_weighted(node) and _groups(layer) == 1 and _channels(layer, "out") % self._heads(products) == 0:
                layers.add(node)
            elif self._keeps_heads(node):
                waiting += [each for each in node.all_input_nodes if self.network.is_of_images(each)]
            else:
                return set()
            inside.add(node)
        read = all(
            user in inside or not self.network.is_of_images(user) for node in inside - {products} for user in node.users
        )
        return layers if read else set()

    def _keeps_heads(self, node: fx.Node) -> bool:
        """Whether a node only moves values, scales them, or normalises each head by itself."""
        layer = self.network.module(node)
        if layer is not None:
            by_head = isinstance(layer, nn.LayerNorm) and len(self.network.shape(node)) == 4
            return isinstance(layer, _POINTWISE) or by_head
        return _calls(node, (operator.getitem, *_PRODUCTS), _LAYOUT) and len(self._operands(node)) <= 1

    # branches

    def _find_branches(self) -> Iterator[Branch]:
        for start, end in pairwise(self._cuts):
            operands = self._operands(end)
            if start is self.network.images or not _calls(end, _SUMS, {"add", "add_"}) or len(operands) != 2:
                continue
            left, right = (self._between(start, operand) for operand in operands)
            layers = [len(side & self._counted) for side in (left, right)]
            if layers[0] == layers[1] or not all(map(self.network.is_of_images, operands)):
                continue
            longer = 0 if layers[0] > layers[1] else 1
            inside, shortcut = (left, right) if longer == 0 else (right, left)
            yield Branch(start, end, operands[longer], frozenset(inside - shortcut), frozenset(shortcut - inside))

    def _between(self, start: fx.Node, end: fx.Node) -> set[fx.Node]:
        """The nodes after a start that an end is computed from, and the end."""
        found: set[fx.Node] = set()
        waiting = [end]
        while waiting:
            node = waiting.pop()
            if node not in found and self.network.index[node] > self.network.index[start]:
                found.add(node)
                waiting += node.all_input_nodes
        return found

    def _whole_branches(self) -> list[Branch]:
        """The branches that a gate can shut image by image."""
        return [branch for branch in self.branches if self._can_be_shut(branch)]

    def _can_be_shut(self, branch: Branch) -> bool:
        shape = self.network.shape(branch.start)
        own_layers = all(self._calls[layer.target] == 1 for layer in branch.inside & self._counted)
        return len(shape) >= 3 and shape[0] == BATCH and own_layers

    def _branch_site(self, branch: Branch) -> FoundSite:
        layers = self._in_order(branch.inside & self._counted)
        around = commonpath(str(layer.target).replace(".", "/") for layer in layers).replace("/", ".")
        return FoundSite(
            name=f"{around or layers[0].target}.branch",
            value=branch.value,
            reader=branch.end,
            decides_on=branch.start,
            input_axis=channel_axis(self.network, branch.start),
            granularity=ssl_dc.Granularity.BRANCH,
            entries=1,
            axis=1,
            layers=layers,
        )

    # the graph

    def _is_weighted(self, node: fx.Node) -> bool:
        """Whether a node calls a layer of weights that no other node calls."""
        return type(self.network.module(node)) in _WEIGHTED and self._calls[node.target] == 1

    def _is_products(self, node: fx.Node) -> bool:
        return isinstance(self.network.module(node), ssl_dc.AttentionProducts)

    def _reads_images(self, node: fx.Node) -> bool:
        """Whether a layer comes before all others: its output is the stem's, which is computed whole."""
        source = node.all_input_nodes[0]
        while source is not self.network.images:
            if self.network.module(source) is not None or len(source.all_input_nodes) != 1:
                return False
            source = source.all_input_nodes[0]
        return True

    def _reads_axis(self, node: fx.Node, axis: int) -> bool:
        shape = self.network.shape(node.all_input_nodes[0])
        return axis == (len(shape) - 1 if isinstance(self.network.module(node), nn.Linear) else 1)

    def _makes_axis(self, node: fx.Node, axis: int) -> bool:
        shape = self.network.shape(node)
        return axis == (len(shape) - 1 if isinstance(self.network.module(node), nn.Linear) else 1)

    def _operands(self, node: fx.Node) -> list[fx.Node]:
        """The tensors that a node reads, images or not."""
        return [each for each in node.all_input_nodes if self.network.shape(each)]

    def _size(self, operand: fx.Node, node: fx.Node, axis: int) -> int:
        """The size of an operand along an axis of what a node makes of it; 1 if it has no such axis."""
        shape = self.network.shape(operand)
        place = axis - len(self.network.shape(node)) + len(shape)
        return shape[place] if place >= 0 else 1

    def _macs(self, node: fx.Node) -> int:
        """What a layer costs, for a batch."""
        layer = self.network.module(node)
        if isinstance(layer, ssl_dc.AttentionProducts):
            queries, keys, values = (torch.Size(self.network.shape(each)) for each in _nodes(node.args[:3]))
            return queries[:-1].numel() * keys[-2] * (queries[-1] + values[-1])
        weight = getattr(layer, "weight", None)
        made = torch.Size(self.network.shape(node)).numel()
        return made // _channels(layer, "out") * weight.numel() if isinstance(weight, Tensor) else 0

    def _cut_before(self, node: fx.Node) -> fx.Node:
        """The last cut in front of a layer."""
        return max(
            (cut for cut in self._cuts if self.network.index[cut] < self.network.index[node]),
            key=self.network.index.__getitem__,
        )

    def _queue(self, nodes: Iterable[fx.Node]) -> list[int]:
        queue = [self.network.index[node] for node in nodes]
        heapq.heapify(queue)
        return queue

    def _in_order(self, nodes: Iterable[fx.Node]) -> tuple[fx.Node, ...]:
        return tuple(sorted(nodes, key=self.network.index.__getitem__))


def channel_axis(network: TracedNetwork, node: fx.Node) -> int:
    """The axis of the channels of a value: the last one of tokens, and what the next layers read of images.

    Args:
        network: The network.
        node: A value of the shape (N, T, C), (N, C, H, W) or (N, H, W, C).
    """
    if len(network.shape(node)) != 4:
        return len(network.shape(node)) - 1
    waiting = list(node.users)
    while waiting:
        user = waiting.pop(0)
        layer = network.module(user)
        if isinstance(layer, (nn.Conv2d, nn.BatchNorm2d, nn.GroupNorm)) or "2d" in type(layer).__name__:
            return 1
        if isinstance(layer, (nn.Linear, nn.LayerNorm)):
            return 3
        if _calls(user, (), {"permute"}):
            return 3 if user.args[1:] in ((0, 3, 1, 2), ((0, 3, 1, 2),)) else 1
        waiting += [each for each in user.users if len(network.shape(user)) == 4]
    return 1


def _calls(node: fx.Node, functions: tuple[Any, ...], methods: set[str]) -> bool:
    """Whether a node calls one of some functions, or a method by one of some names."""
    return (node.op == "call_function" and node.target in functions) or (
        node.op == "call_method" and node.target in methods
    )


def _nodes(arguments: Iterable[Any]) -> list[fx.Node]:
    return [each for each in arguments if isinstance(each, fx.Node)]


def _is_activation(layer: nn.Module) -> bool:
    return type(layer).__module__ in _ACTIVATIONS and type(layer).__name__ not in _NOT_POINTWISE


def _maps_zero_to_zero(layer: nn.Module) -> bool:
    with torch.no_grad():
        return float(layer(torch.zeros(1))) == 0


def _groups(layer: nn.Module | None) -> int:
    return layer.groups if isinstance(layer, nn.Conv2d) else 1


def _has_bias(layer: nn.Module | None) -> bool:
    return getattr(layer, "bias", None) is not None


def _channels(layer: nn.Module | None, side: str) -> int:
    """The channels that a layer reads ("in") or makes ("out")."""
    return int(getattr(layer, f"{side}_channels" if isinstance(layer, nn.Conv2d) else f"{side}_features"))
