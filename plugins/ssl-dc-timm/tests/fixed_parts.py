"""A norm and a gate that the tests see through."""

from __future__ import annotations

import torch
from torch import Tensor, nn

import ssl_dc


class OneNorm(ssl_dc.RouteNorm):
    """One batch norm, which keeps note of where it stands and of the routes that it ran."""

    def __init__(self, channels: int, position: ssl_dc.Position) -> None:
        super().__init__()
        self.position = position
        self.norm = nn.BatchNorm2d(channels)
        self.ran: list[ssl_dc.Route] = []

    def forward(self, x: Tensor, route: ssl_dc.Route) -> Tensor:
        self.ran.append(route)
        return self.norm(x)

    def for_route(self, route: ssl_dc.Route) -> nn.BatchNorm2d:  # noqa: ARG002
        return self.norm


class Fixed(ssl_dc.Gate):
    """A mask that is set from outside; open to begin with."""

    macs = 11

    def __init__(self, site: ssl_dc.GateSite) -> None:
        super().__init__(site)
        self.mask = torch.ones(site.channels)

    def forward(self, x: Tensor, threshold: Tensor) -> Tensor:  # noqa: ARG002
        assert x.ndim == 4
        return self.mask.to(x).expand(len(x), -1)
