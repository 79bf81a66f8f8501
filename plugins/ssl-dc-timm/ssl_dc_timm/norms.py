"""Replaces timm's batch norms by those of the run's norm policy."""

from __future__ import annotations

from typing import cast

from timm.layers.norm_act import BatchNormAct2d
from torch import Tensor, nn

import ssl_dc


class RouteSequential(nn.ModuleList):
    """Layers in sequence. Those whose forward takes the route are given it."""

    def forward(self, x: Tensor, route: ssl_dc.Route) -> Tensor:
        """The output of the last layer for x (N, C, H, W)."""
        for layer in self:
            x = apply(layer, x, route)
        return x


def apply(layer: nn.Module, x: Tensor, route: ssl_dc.Route) -> Tensor:
    """The output of a layer, which is given the route if its forward takes one."""
    return cast(Tensor, layer(x, route) if isinstance(layer, (ssl_dc.RouteNorm, RouteSequential)) else layer(x))


def with_route_norms(module: nn.Module, norm_factory: ssl_dc.NormFactory, position: ssl_dc.Position) -> nn.Module:
    """A module of timm's with the policy's norms in place of its batch norms.

    The new norms start with timm's weights, statistics, eps and momentum.

    Args:
        module: A batch norm, or a :class:`torch.nn.Sequential` with batch norms. Anything else is returned unchanged.
        norm_factory: Gives the norms.
        position: Where the module is in the network.

    Returns:
        A :class:`ssl_dc.RouteNorm`, a :class:`RouteSequential`, or the module itself.
    """
    if isinstance(module, nn.Sequential):
        return RouteSequential(with_route_norms(layer, norm_factory, position) for layer in module)
    return route_norm(module, norm_factory, position) if type(module) is nn.BatchNorm2d else module


def route_norm(batch_norm: nn.BatchNorm2d, norm_factory: ssl_dc.NormFactory, position: ssl_dc.Position) -> ssl_dc.RouteNorm:
    """The policy's norm for a position, with the weights, statistics, eps and momentum of timm's batch norm."""
    norm = norm_factory(batch_norm.num_features, position)
    for route in ssl_dc.Route.BOTH:
        own = norm.for_route(route)
        state = batch_norm.state_dict()
        own.load_state_dict({name: state[name] for name in own.state_dict()})
        own.eps, own.momentum = batch_norm.eps, batch_norm.momentum
    return norm


class OneRouteNorm(nn.Module):
    """A norm of the policy in a network that takes no route: its dense route, and the layers that timm fuses with it.

    Args:
        norm: The norm.
        after: The layers that follow it, such as an activation.
    """

    def __init__(self, norm: ssl_dc.RouteNorm, after: nn.Module) -> None:
        super().__init__()
        self.norm = norm
        self.after = after

    def forward(self, x: Tensor) -> Tensor:
        """Normalise x (N, C, H, W)."""
        return cast(Tensor, self.after(self.norm(x, ssl_dc.Route.DENSE)))


def replace_batch_norms(network: nn.Module, norm_factory: ssl_dc.NormFactory) -> None:
    """Replace every batch norm inside a network that takes no route, in place."""
    for module in list(network.modules()):
        for name, child in module.named_children():
            if isinstance(child, BatchNormAct2d):
                after: nn.Module = nn.Sequential(child.drop, child.act)
            elif type(child) is nn.BatchNorm2d:
                after = nn.Identity()
            else:
                continue
            setattr(module, name, OneRouteNorm(route_norm(child, norm_factory, ssl_dc.Position.BLOCK), after))
