"""What a norm policy is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from enum import Enum

from torch import Tensor, nn

from ssl_dc.routes import Route


class Position(str, Enum):
    """Where in a network a norm layer stands."""

    STEM = "stem"
    BLOCK = "block"
    """Inside a residual block, on its branch."""
    DOWNSAMPLE = "downsample"
    """On a block's shortcut."""


class RouteNorm(nn.Module, ABC):
    """A norm layer whose forward takes the route."""

    @abstractmethod
    def forward(self, x: Tensor, route: Route) -> Tensor:
        """Normalise x (N, C, H, W) by the batch norm of the route."""

    @abstractmethod
    def for_route(self, route: Route) -> nn.BatchNorm2d:
        """The plain batch norm that acts on a route. Folding and export use it."""


NormFactory = Callable[[int, Position], RouteNorm]
"""A backbone calls it for each norm layer, with (channels, position)."""


class NormPolicy(ABC):
    """Decides which norm layers keep separate statistics for each route."""

    @abstractmethod
    def layer(self, channels: int, position: Position) -> RouteNorm:
        """A new norm layer."""
