"""The attention of a traced network: which layers make the queries, keys and values of a head, and what reads it."""

from __future__ import annotations

import operator

import torch
from torch import fx, nn

from ssl_dc_timm.layer_graph import LayerGraph
from ssl_dc_timm.operations import LAYOUT_METHODS, POINTWISE_LAYERS, PRODUCTS, calls, channels_of, groups_of, nodes
from ssl_dc_timm.trace import BATCH


def attended(graph: LayerGraph, node: fx.Node, axis: int) -> fx.Node | None:
    """The products of attention whose heads a node lays side by side as tokens (N, T, C); None if it does not."""
    if (
        not calls(node, (torch.flatten,), {"reshape", "view", "flatten"})
        or axis != 2
        or len(graph.network.shape(node)) != 3
    ):
        return None
    source = node.all_input_nodes[0]
    if calls(source, (), {"contiguous"}):
        source = source.all_input_nodes[0]
    moved = calls(source, (torch.transpose,), {"transpose", "permute"}) and source.args[1:] in (
        (1, 2),
        (2, 1),
        (0, 2, 1, 3),
        ((0, 2, 1, 3),),
    )
    products = source.all_input_nodes[0] if moved else None
    if products is None or not graph.is_products(products) or len(products.users) > 1:
        return None
    if not heads_of(graph, products):
        return None
    batch, heads, tokens, width = graph.network.shape(products)
    return products if graph.network.shape(node) == (batch, tokens, heads * width) else None


def heads_of(graph: LayerGraph, products: fx.Node) -> int:
    """The heads of products of attention; 0 if queries, keys and values have not as many."""
    shapes = [graph.network.shape(each) for each in (products, *nodes(products.args[:3]))]
    same = all(len(shape) == 4 and shape[:2] == (BATCH, shapes[0][1]) for shape in shapes)
    return shapes[0][1] if same else 0


def layers_before(graph: LayerGraph, products: fx.Node) -> set[fx.Node]:
    """The layers that make queries, keys and values, if nothing else reads these; empty if they do not all qualify."""
    layers: set[fx.Node] = set()
    waiting = nodes(products.args[:3])
    inside = {products}
    while waiting:
        node = waiting.pop()
        if node in inside:
            continue
        layer = graph.network.module(node)
        if graph.is_weighted(node) and groups_of(layer) == 1 and channels_of(layer, "out") % heads_of(graph, products) == 0:
            layers.add(node)
        elif _keeps_heads(graph, node):
            waiting += [each for each in node.all_input_nodes if graph.network.is_of_images(each)]
        else:
            return set()
        inside.add(node)
    read = all(
        user in inside or not graph.network.is_of_images(user) for node in inside - {products} for user in node.users
    )
    return layers if read else set()


def _keeps_heads(graph: LayerGraph, node: fx.Node) -> bool:
    """Whether a node only moves values, scales them, or normalises each head by itself."""
    layer = graph.network.module(node)
    if layer is not None:
        by_head = isinstance(layer, nn.LayerNorm) and len(graph.network.shape(node)) == 4
        return isinstance(layer, POINTWISE_LAYERS) or by_head
    return calls(node, (operator.getitem, *PRODUCTS), LAYOUT_METHODS) and len(graph.operands(node)) <= 1
