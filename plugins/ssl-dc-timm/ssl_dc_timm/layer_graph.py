"""A traced network with what the search for gate sites asks of its layers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import torch
from torch import Tensor, fx, nn

import ssl_dc
from ssl_dc_timm.operations import COUNTED_LAYERS, WEIGHTED_LAYERS, calls, channels_of, nodes
from ssl_dc_timm.trace import TracedNetwork


class LayerGraph:
    """The layers of a traced network.

    Args:
        network: The network.

    Attributes:
        network: The network.
        cuts: The values through which all that comes later is computed, in order.
        calls: How often each layer is called, by its name.
        stem: The layers that read the images; their outputs are computed whole.
        counted: The layers that the cost model counts.
    """

    def __init__(self, network: TracedNetwork) -> None:
        self.network = network
        self.cuts = network.cuts()
        self.calls = Counter(node.target for node in network.nodes if node.op == "call_module")
        self.stem = {node for node in network.nodes if self.is_weighted(node) and self.reads_images(node)}
        self.counted = {node for node in network.nodes if isinstance(network.module(node), COUNTED_LAYERS)}

    def is_weighted(self, node: fx.Node) -> bool:
        """Whether a node calls a layer of weights that no other node calls."""
        return type(self.network.module(node)) in WEIGHTED_LAYERS and self.calls[node.target] == 1

    def is_products(self, node: fx.Node) -> bool:
        """Whether a node makes the products of attention."""
        return isinstance(self.network.module(node), ssl_dc.AttentionProducts)

    def reads_images(self, node: fx.Node) -> bool:
        """Whether a layer comes before all others: its output is the stem's, which is computed whole."""
        source = node.all_input_nodes[0]
        while source is not self.network.images:
            if self.network.module(source) is not None or len(source.all_input_nodes) != 1:
                return False
            source = source.all_input_nodes[0]
        return True

    def reads_axis(self, node: fx.Node, axis: int) -> bool:
        """Whether a layer sums over an axis of the value that it reads: that of the channels."""
        shape = self.network.shape(node.all_input_nodes[0])
        return axis == (len(shape) - 1 if isinstance(self.network.module(node), nn.Linear) else 1)

    def makes_axis(self, node: fx.Node, axis: int) -> bool:
        """Whether an axis of a layer's output is that of its channels."""
        shape = self.network.shape(node)
        return axis == (len(shape) - 1 if isinstance(self.network.module(node), nn.Linear) else 1)

    def operands(self, node: fx.Node) -> list[fx.Node]:
        """The tensors that a node reads, images or not."""
        return [each for each in node.all_input_nodes if self.network.shape(each)]

    def size(self, operand: fx.Node, node: fx.Node, axis: int) -> int:
        """The size of an operand along an axis of what a node makes of it; 1 if it has no such axis."""
        shape = self.network.shape(operand)
        place = axis - len(self.network.shape(node)) + len(shape)
        return shape[place] if place >= 0 else 1

    def macs(self, node: fx.Node) -> int:
        """What a layer costs, for a batch."""
        layer = self.network.module(node)
        if isinstance(layer, ssl_dc.AttentionProducts):
            queries, keys, values = (torch.Size(self.network.shape(each)) for each in nodes(node.args[:3]))
            return queries[:-1].numel() * keys[-2] * (queries[-1] + values[-1])
        weight = getattr(layer, "weight", None)
        made = torch.Size(self.network.shape(node)).numel()
        return made // channels_of(layer, "out") * weight.numel() if isinstance(weight, Tensor) else 0

    def cut_before(self, node: fx.Node) -> fx.Node:
        """The last cut in front of a layer."""
        return max(
            (cut for cut in self.cuts if self.network.index[cut] < self.network.index[node]),
            key=self.network.index.__getitem__,
        )

    def in_order(self, nodes: Iterable[fx.Node]) -> tuple[fx.Node, ...]:
        """Nodes in the order in which they run."""
        return tuple(sorted(nodes, key=self.network.index.__getitem__))

    def between(self, start: fx.Node, end: fx.Node) -> set[fx.Node]:
        """The nodes after a start that an end is computed from, and the end."""
        found: set[fx.Node] = set()
        waiting = [end]
        while waiting:
            node = waiting.pop()
            if node not in found and self.network.index[node] > self.network.index[start]:
                found.add(node)
                waiting += node.all_input_nodes
        return found


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
        if calls(user, (), {"permute"}):
            return 3 if user.args[1:] in ((0, 3, 1, 2), ((0, 3, 1, 2),)) else 1
        waiting += [each for each in user.users if len(network.shape(user)) == 4]
    return 1
