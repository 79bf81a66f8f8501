"""What a norm policy is."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable
from enum import Enum

from torch import Tensor, nn

from ssl_dc.errors import ConfigError
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
        """Normalise x (N, C, H, W) by the batch norm of the route. After :meth:`normalise_by`, x may have another shape."""

    @abstractmethod
    def for_route(self, route: Route) -> nn.BatchNorm2d:
        """The plain batch norm that acts on a route. Folding and export use it.

        After :meth:`normalise_by` it is the layer in the place of the batch norm.
        """

    def normalise_by(self, layer: nn.Module) -> None:
        """Put a copy of a layer in the place of each batch norm, such as a layer norm or a group norm.

        Routes that share a batch norm then share a copy, and all others have one each. So a norm policy decides about norms
        of every kind.

        Args:
            layer: Maps an activation to one of the same shape.

        Raises:
            ConfigError: If the batch norms are not modules of their own inside this one.
        """
        copies: dict[nn.Module, nn.Module] = {}
        for name, module in list(self.named_modules(remove_duplicate=False)):
            if name and isinstance(module, nn.BatchNorm2d):
                where, _, attribute = name.rpartition(".")
                copies.setdefault(module, copy.deepcopy(layer))
                setattr(self.get_submodule(where), attribute, copies[module])
        acting = {self.for_route(route) for route in Route.BOTH}
        if not acting <= set(copies.values()):
            raise ConfigError(
                f"the norms of this policy ({type(self).__name__}) are batch norms only: a network with a"
                f" {type(layer).__name__} needs another one, such as norm=separate"
            )


NormFactory = Callable[[int, Position], RouteNorm]
"""A backbone calls it for each norm layer, with (channels, position)."""


class NormPolicy(ABC):
    """Decides which norm layers keep separate statistics for each route."""

    @abstractmethod
    def layer(self, channels: int, position: Position) -> RouteNorm:
        """A new norm layer."""
