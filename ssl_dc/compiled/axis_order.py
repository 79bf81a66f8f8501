"""Calls of torch that arrange the elements of a tensor anew, and what they do to its axes."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import fx, nn

from ssl_dc.backbones.base import GatePoint

_MOVING_METHODS = {
    *("reshape", "view", "permute", "transpose", "unbind", "contiguous", "chunk", "flatten", "unsqueeze", "squeeze"),
}
_MOVING_FUNCTIONS = (
    operator.getitem,
    *(torch.reshape, torch.permute, torch.transpose, torch.unbind, torch.chunk, torch.flatten, torch.unsqueeze),
)
_FORMS = {(0, 2, 3, 1): "last", (0, 3, 1, 2): "first"}
"""The permutations that only move the channels."""


def only_moves(node: fx.Node) -> bool:
    """Whether a call only arranges the elements of its first argument anew."""
    return (node.op == "call_method" and node.target in _MOVING_METHODS) or node.target in _MOVING_FUNCTIONS


def form_of(node: fx.Node) -> str | None:
    """Where a call that permutes the axes of an image puts the channels: ``last`` or ``first``; None for any other call."""
    return _FORMS.get(_order_of(node))


def channels_last(graph: fx.Graph, modules: Mapping[str, nn.Module]) -> dict[fx.Node, fx.Node]:
    """Nodes that only turn a value (N, T, C) or (N, H, W, C) into an image for gates, each with that value."""
    found: dict[fx.Node, fx.Node] = {}

    def for_gates(node: fx.Node) -> bool:
        points = (user for user in node.users if user.op == "call_module")
        return len(node.users) == sum(
            isinstance(modules[cast(str, user.target)], GatePoint) and user.args[0] is not node for user in points
        )

    for node in graph.nodes:
        match _order_of(node):
            case (0, 3, 1, 2) if for_gates(node):
                found[node] = node.args[0]
            case (0, 2, 1):
                columns = [
                    user
                    for user in node.users
                    if (user.op, user.target, user.args[1:]) == ("call_method", "unsqueeze", (-1,))
                ]
                if len(columns) == len(node.users) and all(map(for_gates, columns)):
                    found |= dict.fromkeys((node, *columns), node.args[0])
    return found


def flattened_into_tokens(graph: fx.Graph) -> dict[fx.Node, fx.Node]:
    """Nodes ``x.flatten(2)`` that are read as ``x.flatten(2).transpose(1, 2)`` only, each with x."""
    found: dict[fx.Node, fx.Node] = {}
    for node in graph.nodes:
        users = [(user.op, user.target, user.args[1:]) for user in node.users]
        turned = users in ([("call_method", "transpose", (1, 2))], [("call_method", "transpose", (2, 1))])
        if turned and (node.op, node.target, node.args[1:], node.kwargs) == ("call_method", "flatten", (2,), {}):
            found[node] = node.args[0]
    return found


def _order_of(node: fx.Node) -> tuple[Any, ...]:
    """The order of the axes of a node that permutes them; () for any other node."""
    if node.op != "call_method" or node.target != "permute":
        return ()
    order = node.args[1:]
    return tuple(order[0]) if len(order) == 1 and isinstance(order[0], (tuple, list)) else tuple(order)
