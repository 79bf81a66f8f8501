"""Batch-norm policies: two batch norms everywhere, and faulty ones."""

from __future__ import annotations

from torch import nn

from ssl_dc import NormPolicy, Route, RouteNorm


class PerRouteNorm(RouteNorm):
    def __init__(self, channels):
        super().__init__()
        self.norms = nn.ModuleDict({str(route): nn.BatchNorm2d(channels) for route in Route.BOTH})

    def forward(self, x, route):
        return self.norms[str(route)](x)

    def for_route(self, route):
        return self.norms[str(route)]


class PerRoute(NormPolicy):
    norm_class: type[RouteNorm] = PerRouteNorm

    def __init__(self, options):
        self.options = options

    def layer(self, channels, position):
        return self.norm_class(channels)


class SwappedNorm(PerRouteNorm):
    def for_route(self, route):
        return self.norms[str(Route.DENSE if route.gated else Route.GATED)]


class SwappedRoutes(PerRoute):
    norm_class = SwappedNorm


class BatchNorm(RouteNorm, nn.BatchNorm2d):
    def forward(self, x, route):
        return nn.BatchNorm2d.forward(self, x)

    def for_route(self, route):
        plain = nn.BatchNorm2d(self.num_features)
        plain._parameters, plain._buffers = self._parameters, self._buffers
        return plain.train(self.training)


class IsABatchNorm(PerRoute):
    norm_class = BatchNorm


class OneLayerForAll(PerRoute):
    def layer(self, channels, position):
        self.only = getattr(self, "only", None) or super().layer(channels, position)
        return self.only
