"""Shared batch norm: one set of weights and statistics for both routes ("Vanilla" in Table 6 of the paper)."""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn

from ssl_dc.norms.base import NormPolicy, Position, RouteNorm
from ssl_dc.norms.options import SharedNormsOptions
from ssl_dc.routes import Route


class SharedNorm(RouteNorm):
    """One batch norm for every route.

    Args:
        channels: Width of the activation.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.both = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor, route: Route) -> Tensor:  # noqa: ARG002  # the point of this policy
        """Normalise x (N, C, H, W)."""
        return cast(Tensor, self.both(x))

    def for_route(self, route: Route) -> nn.BatchNorm2d:  # noqa: ARG002
        """The one batch norm."""
        return self.both


class SharedNorms(NormPolicy):
    """The norm policy ``shared``."""

    def __init__(self, options: SharedNormsOptions) -> None:
        self.options = options

    def layer(self, channels: int, position: Position) -> RouteNorm:  # noqa: ARG002
        """One batch norm for both routes, everywhere."""
        return SharedNorm(channels)
