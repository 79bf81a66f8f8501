"""The residual branches of a traced network."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from torch import fx

from ssl_dc_timm.layer_graph import LayerGraph
from ssl_dc_timm.operations import SUMS, calls
from ssl_dc_timm.trace import BATCH


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


def residual_branches(graph: LayerGraph) -> Iterator[Branch]:
    """The residual branches of a network that have layers, in order."""
    for start, end in pairwise(graph.cuts):
        operands = graph.operands(end)
        if start is graph.network.images or not calls(end, SUMS, {"add", "add_"}) or len(operands) != 2:
            continue
        left, right = (graph.between(start, operand) for operand in operands)
        layers = [len(side & graph.counted) for side in (left, right)]
        if layers[0] == layers[1] or not all(map(graph.network.is_of_images, operands)):
            continue
        longer = 0 if layers[0] > layers[1] else 1
        inside, shortcut = (left, right) if longer == 0 else (right, left)
        yield Branch(start, end, operands[longer], frozenset(inside - shortcut), frozenset(shortcut - inside))


def can_be_shut(graph: LayerGraph, branch: Branch) -> bool:
    """Whether a gate can shut a branch image by image."""
    shape = graph.network.shape(branch.start)
    own_layers = all(graph.calls[layer.target] == 1 for layer in branch.inside & graph.counted)
    return len(shape) >= 3 and shape[0] == BATCH and own_layers
