"""A network of blocks of today's families: inverted residuals, ConvNeXt blocks and transformer blocks, with gates."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_dc.backbones.attention import AttentionProducts
from ssl_dc.backbones.base import Backbone, GatePoint, Masks
from ssl_dc.gating.base import GateFactory
from ssl_dc.gating.sites import GateSite, Granularity
from ssl_dc.norms.base import Position, RouteNorm
from ssl_dc.routes import Route
from tests.helpers.networks import SEPARATE

ACTIVATIONS = {
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "hardswish": nn.Hardswish,
    "relu6": nn.ReLU6,
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
}
"""The kernel knows all but the last."""


class OverChannels(nn.LayerNorm):
    """A layer norm over the channels of (N, C, H, W)."""

    def forward(self, x: Tensor) -> Tensor:
        normalised: Tensor = super().forward(x.permute(0, 2, 3, 1))
        return normalised.permute(0, 3, 1, 2)


def layer_norm(norm: nn.LayerNorm) -> RouteNorm:
    """A layer norm for each route, of other weights each."""
    (channels,) = norm.normalized_shape
    made = SEPARATE.layer(channels, Position.BLOCK)
    made.normalise_by(norm)
    for route in Route.BOTH:
        own: nn.Module = made.for_route(route)
        for parameter in own.parameters():
            nn.init.uniform_(parameter, 0.5, 1.5)
    return made


class InvertedResidual(nn.Module):
    """1x1, depthwise or grouped, and 1x1 convolutions, with squeeze-and-excitation.

    There is a gate for each group of the second one.
    """

    def __init__(
        self,
        name: str,
        width: int,
        groups: int,
        of_group: int,
        kernel: int,
        stride: int,
        activation: str,
        gates: GateFactory,
    ) -> None:
        super().__init__()
        hidden = groups * of_group
        self.expand = nn.Conv2d(width, hidden, 1)
        self.depthwise = nn.Conv2d(hidden, hidden, kernel, stride=stride, padding=kernel // 2, groups=groups)
        self.norm = SEPARATE.layer(hidden, Position.BLOCK)
        self.squeeze, self.excite = nn.Conv2d(hidden, 6, 1), nn.Conv2d(6, hidden, 1)
        self.project = nn.Conv2d(hidden, width, 1)
        self.short = nn.Conv2d(width, width, 1, stride=stride)
        self.first, self.second = (ACTIVATIONS[activation]() for _ in range(2))
        self.gate = nn.Hardsigmoid() if hidden % 2 else nn.Sigmoid()
        layers = ("expand", "depthwise", "squeeze", "excite", "project")
        site = GateSite(f"{name}.channels", Granularity.CHANNEL, width, groups, layers)
        self.channels = GatePoint(site, gates)
        self.branch = GatePoint(GateSite(f"{name}.branch", Granularity.BRANCH, width, 1, layers), gates)

    def forward(self, x: Tensor, route: Route, masks: Masks) -> Tensor:
        y = self.second(self.norm(self.depthwise(self.first(self.expand(x))), route))
        y = self.channels(y, x, route, masks)
        y = y * self.gate(self.excite(F.silu(self.squeeze(y.mean((2, 3), keepdim=True)))))
        return self.short(x) + self.branch(self.project(y), x, route, masks)


class ConvNeXt(nn.Module):
    """A depthwise convolution, a layer norm, and two 1x1 convolutions, or linear layers, with a gate between them."""

    def __init__(self, name: str, width: int, hidden: int, kernel: int, last: bool, gates: GateFactory) -> None:
        super().__init__()
        self.last = last
        self.depthwise = nn.Conv2d(width, width, kernel, padding=kernel // 2, groups=width)
        self.norm = layer_norm(nn.LayerNorm(width) if last else OverChannels(width))
        self.first: nn.Module = nn.Linear(width, hidden) if last else nn.Conv2d(width, hidden, 1)
        self.second: nn.Module = nn.Linear(hidden, width) if last else nn.Conv2d(hidden, width, 1)
        self.gamma = nn.Parameter(torch.empty(width).uniform_(0.5, 1.5))
        axis = -1 if last else 1
        site = GateSite(f"{name}.channels", Granularity.CHANNEL, width, hidden, ("first", "second"), axis=axis)
        self.point = GatePoint(site, gates)

    def forward(self, x: Tensor, route: Route, masks: Masks) -> Tensor:
        y = self.depthwise(x)
        y = self.norm(y.permute(0, 2, 3, 1) if self.last else y, route)
        y = self.second(self.point(F.gelu(self.first(y)), x, route, masks))
        return x + ((y * self.gamma).permute(0, 3, 1, 2) if self.last else y * self.gamma.reshape(1, -1, 1, 1))


class Transformer(nn.Module):
    """Attention and an MLP, with gates for heads and for the hidden channels."""

    def __init__(self, name: str, width: int, hidden: int, heads: int, gates: GateFactory) -> None:
        super().__init__()
        self.heads = heads
        self.norms = nn.ModuleList(layer_norm(nn.LayerNorm(width)) for _ in range(2))
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.products = AttentionProducts()
        self.first, self.second, self.activation = nn.Linear(width, hidden), nn.Linear(hidden, width), nn.GELU()
        layers = ("qkv", "products", "proj")
        self.by_head = GatePoint(GateSite(f"{name}.heads", Granularity.CHANNEL, width, heads, layers, axis=-1), gates)
        site = GateSite(f"{name}.channels", Granularity.CHANNEL, width, hidden, ("first", "second"), axis=-1)
        self.channels = GatePoint(site, gates)

    def forward(self, x: Tensor, route: Route, masks: Masks) -> Tensor:
        y = self.norms[0](x, route)
        n, t, c = y.shape
        qkv = self.qkv(y).reshape(n, t, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)
        y = self.products(q, k, v).transpose(1, 2).reshape(n, t, c)
        x = x + self.proj(self.by_head(y, x.permute(0, 2, 1).unsqueeze(-1), route, masks))
        y = self.activation(self.first(self.norms[1](x, route)))
        return x + self.second(self.channels(y, x.permute(0, 2, 1).unsqueeze(-1), route, masks))


class Blocks(Backbone):
    """A stem, and blocks one after the other.

    Args:
        gates: Gives the gates.
        blocks: For each block its kind: ``inverted``, ``grouped``, ``convnext``, ``convnext last`` or ``transformer``. All
            that follows a transformer block must be such blocks.
        width: Channels between blocks.
        hidden: Channels inside of blocks.
        of_group: Channels of a group.
        heads: Attention heads.
        kernel: Side of depthwise convolutions, an odd number.
        stride: Of the depthwise convolutions of inverted residuals.
        activation: A key of :data:`ACTIVATIONS`.
    """

    feature_dim = 0

    feature_dim = 0

    def __init__(
        self,
        gates: GateFactory,
        *,
        blocks: tuple[str, ...],
        width: int,
        hidden: int,
        of_group: int,
        heads: int,
        kernel: int,
        stride: int,
        activation: str,
    ) -> None:
        super().__init__()
        self.feature_dim = width
        self.stem = nn.Conv2d(3, width, 3, padding=1)
        self.blocks = nn.ModuleList()
        for number, kind in enumerate(blocks):
            name = f"blocks.{number}"
            made: nn.Module
            if kind == "inverted":
                made = InvertedResidual(name, width, hidden, 1, kernel, stride, activation, gates)
            elif kind == "grouped":
                made = InvertedResidual(name, width, 2 + hidden % 9, of_group, kernel, stride, activation, gates)
            elif kind == "transformer":
                made = Transformer(name, width, hidden, heads, gates)
            else:
                made = ConvNeXt(name, width, hidden, kernel, kind == "convnext last", gates)
            self.blocks.append(made)

    def forward(self, images: Tensor, route: Route) -> tuple[Tensor, Masks]:
        masks: Masks = {}
        x = self.stem(images)
        maps = True
        for block in self.blocks:
            if isinstance(block, Transformer) and maps:
                x, maps = x.flatten(2).transpose(1, 2), False
            x = block(x, route, masks)
        return x.mean((2, 3)) if maps else x.mean(1), masks
