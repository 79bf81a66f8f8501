"""Separate batch norm: each route has its own batch norms inside residual blocks (method section 3; Yu et al. 2019)."""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn

from ssl_dc.norms.base import NormPolicy, Position, RouteNorm
from ssl_dc.norms.options import SeparateNormsOptions
from ssl_dc.norms.shared import SharedNorm
from ssl_dc.routes import Route


class SeparateNorm(RouteNorm):
    """Two batch norms, one for each route.

    Args:
        channels: Width of the activation.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.dense = nn.BatchNorm2d(channels)
        self.gated = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor, route: Route) -> Tensor:
        """Normalise x (N, C, H, W) by the batch norm of its route."""
        return cast(Tensor, self.for_route(route)(x))

    def for_route(self, route: Route) -> nn.BatchNorm2d:
        """The batch norm of a route."""
        return self.gated if route.gated else self.dense


class SeparateNorms(NormPolicy):
    """The norm policy ``separate``: two norms inside blocks; stem and downsample norms stay shared."""

    def __init__(self, options: SeparateNormsOptions) -> None:
        self.options = options

    def layer(self, channels: int, position: Position) -> RouteNorm:
        """Two batch norms inside a block, one elsewhere."""
        return SeparateNorm(channels) if position is Position.BLOCK else SharedNorm(channels)
