"""Traces one route of a backbone into a plan."""

from __future__ import annotations

import copy
from typing import cast

from torch import Tensor, nn

from ssl_dc.backbones.base import Backbone
from ssl_dc.compiled.lowering import lower
from ssl_dc.compiled.plan import Plan
from ssl_dc.compiled.torch_layers import is_plain_convolution
from ssl_dc.compiled.tracing import trace
from ssl_dc.errors import RunError
from ssl_dc.routes import Route


def capture(backbone: Backbone, route: Route) -> Plan:
    """Trace one route of a backbone in evaluation mode into a plan with one step for each operation.

    A copy of the backbone is traced, so neither the backbone nor any other module of the process notices. Other threads
    may run networks, or trace some, meanwhile. The weights of ``Conv`` steps are shared with the backbone; all else in the
    plan belongs to the copy.

    Raises:
        ValueError: If the route has one budget for each image: a plan has the same for all.
        RunError: If the forward of the backbone cannot be traced, for example because it branches on computed values.
    """
    if isinstance(route.budget, tuple):
        raise ValueError(f"a compiled route has one budget for all images, not {route}")
    network = _OneRoute(_copy_sharing_convolutions(backbone).eval(), route)
    try:
        graph = trace(network)
    except Exception as error:  # a stranger's forward may raise anything
        raise RunError(
            f"{type(backbone).__name__}'s forward cannot be traced, which compiling it needs:"
            f" {type(error).__name__}: {error}"
        ) from error
    return lower(graph, network, route)


def _copy_sharing_convolutions(backbone: Backbone) -> Backbone:
    """A deep copy that shares the weights of the convolutions that become steps: they are most of the memory."""
    in_gates = {module for point in backbone.gate_points() for module in point.modules()}
    weights = (conv.weight for conv in backbone.modules() if is_plain_convolution(conv) and conv not in in_gates)
    return copy.deepcopy(backbone, {id(weight): weight for weight in weights})


class _OneRoute(nn.Module):
    """A backbone on one route: images to features."""

    def __init__(self, backbone: Backbone, route: Route) -> None:
        super().__init__()
        self.backbone = backbone
        self.route = route

    def forward(self, images: Tensor) -> Tensor:
        return cast(Tensor, self.backbone(images, self.route)[0])
