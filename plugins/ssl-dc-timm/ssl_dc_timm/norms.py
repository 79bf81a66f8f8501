"""Replaces timm's norms by those of the run's norm policy."""

from __future__ import annotations

from collections import OrderedDict
from typing import cast

from timm.layers import RmsNorm
from timm.layers.norm_act import BatchNormAct2d
from torch import Tensor, nn

import ssl_dc

NORMS = (nn.BatchNorm2d, nn.LayerNorm, nn.GroupNorm, RmsNorm)
"""Kinds of norm that a norm policy decides about."""


def split_norm_acts(network: nn.Module) -> None:
    """Split every batch norm with its own activation into a batch norm and that activation, in place."""
    for module in list(network.modules()):
        for name, child in module.named_children():
            if type(child) is BatchNormAct2d:
                norm = nn.BatchNorm2d(
                    child.num_features, child.eps, child.momentum, child.affine, child.track_running_stats
                )
                norm.load_state_dict(child.state_dict())
                norm.train(child.training)
                layers = OrderedDict(norm=norm, drop=child.drop, act=child.act)
                setattr(module, name, nn.Sequential(layers))


def is_norm(module: nn.Module | None) -> bool:
    """Whether a norm policy decides about a layer."""
    plain = not isinstance(module, nn.BatchNorm2d) or type(module) is nn.BatchNorm2d
    return plain and isinstance(module, NORMS)


def route_norm(norm: nn.Module, norm_factory: ssl_dc.NormFactory, position: ssl_dc.Position) -> ssl_dc.RouteNorm:
    """The policy's norm for a position, which begins as timm's norm for every route.

    Args:
        norm: Timm's norm: a batch norm, a layer norm or another of :data:`NORMS`.
        norm_factory: Gives the norms.
        position: Where the norm is in the network.
    """
    if not isinstance(norm, nn.BatchNorm2d):
        made = norm_factory(_channels(norm), position)
        made.normalise_by(norm)
        return made
    made = norm_factory(norm.num_features, position)
    state = norm.state_dict()
    for route in ssl_dc.Route.BOTH:
        own = made.for_route(route)
        own.load_state_dict({name: state[name] for name in own.state_dict()})
        own.eps, own.momentum = norm.eps, norm.momentum
    return made


def _channels(norm: nn.Module) -> int:
    if isinstance(norm, nn.GroupNorm):
        return norm.num_channels
    return cast("tuple[int, ...]", norm.normalized_shape)[-1]


class OneRouteNorm(nn.Module):
    """A norm of the policy in a network that takes no route: its dense route.

    Args:
        norm: The norm.
    """

    def __init__(self, norm: ssl_dc.RouteNorm) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, x: Tensor) -> Tensor:
        """Normalise x (N, C, H, W)."""
        return cast(Tensor, self.norm(x, ssl_dc.Route.DENSE))


def replace_batch_norms(network: nn.Module, norm_factory: ssl_dc.NormFactory) -> None:
    """Replace every batch norm inside a network that takes no route, in place."""
    for module in list(network.modules()):
        for name, child in module.named_children():
            if type(child) is nn.BatchNorm2d:
                setattr(module, name, OneRouteNorm(route_norm(child, norm_factory, ssl_dc.Position.BLOCK)))
