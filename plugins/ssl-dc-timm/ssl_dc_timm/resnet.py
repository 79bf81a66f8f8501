"""timm's ResNets with gate sites. Their forward is written out so that the route reaches every norm and gate."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from timm.models.resnet import BasicBlock, Bottleneck, ResNet
from torch import Tensor, nn

import ssl_dc
from ssl_dc_timm.norms import apply, with_route_norms


class GatedBasicBlock(nn.Module):
    """timm's basic block, with the gate sites of ssl-dc's own.

    ``hidden`` (channel): the activation between the two convolutions.
    ``branch`` (branch): the convolutions, and those of the attention that some families have.

    Args:
        name: The block's name in the backbone.
        block: timm's block, whose layers are used.
        norm_factory: Gives the norms.
        gate_factory: Gives the gates.
    """

    def __init__(
        self, name: str, block: BasicBlock, norm_factory: ssl_dc.NormFactory, gate_factory: ssl_dc.GateFactory
    ) -> None:
        super().__init__()
        self.conv1 = block.conv1
        self.norm1 = with_route_norms(block.bn1, norm_factory, ssl_dc.Position.BLOCK)
        self.act1 = nn.Sequential(block.drop_block, block.act1, _or_nothing(block.aa))
        self.conv2 = block.conv2
        self.norm2 = with_route_norms(block.bn2, norm_factory, ssl_dc.Position.BLOCK)
        self.attention = _or_nothing(block.se)
        everything = _layers(self)
        self.shortcut = with_route_norms(_or_nothing(block.downsample), norm_factory, ssl_dc.Position.DOWNSAMPLE)
        self.drop_path = _or_nothing(block.drop_path)
        self.act2 = block.act2
        sites = SitesOfBlock(name, block.conv1.in_channels, gate_factory)
        self.hidden = sites.channel("hidden", block.conv1.out_channels, ["conv1", "conv2"])
        self.branch = sites.branch(everything)

    def forward(self, x: Tensor, route: ssl_dc.Route, masks: ssl_dc.Masks) -> Tensor:
        """The block's output for x (N, C, H, W)."""
        hidden = self.hidden(self.act1(apply(self.norm1, self.conv1(x), route)), x, route, masks)
        branch = self.attention(apply(self.norm2, self.conv2(hidden), route))
        branch = self.drop_path(self.branch(branch, x, route, masks))
        return cast(Tensor, self.act2(branch + apply(self.shortcut, x, route)))


class GatedBottleneck(nn.Module):
    """timm's bottleneck, with the gate sites of ssl-dc's own.

    ``reduced`` (channel): the activation before the 3x3 convolution. A grouped convolution (ResNeXt) has no such site: the
    saving of a channel there depends on which others of its group are shut, and a product of shares cannot express that.
    ``hidden`` (channel): the activation after the 3x3 convolution.
    ``branch`` (branch): the convolutions, and those of the attention that some families have.

    Args:
        name: The block's name in the backbone.
        block: timm's block, whose layers are used.
        norm_factory: Gives the norms.
        gate_factory: Gives the gates.
    """

    def __init__(
        self, name: str, block: Bottleneck, norm_factory: ssl_dc.NormFactory, gate_factory: ssl_dc.GateFactory
    ) -> None:
        super().__init__()
        self.conv1 = block.conv1
        self.norm1 = with_route_norms(block.bn1, norm_factory, ssl_dc.Position.BLOCK)
        self.act1 = block.act1
        self.conv2 = block.conv2
        self.norm2 = with_route_norms(block.bn2, norm_factory, ssl_dc.Position.BLOCK)
        self.act2 = nn.Sequential(block.drop_block, block.act2, _or_nothing(block.aa))
        self.conv3 = block.conv3
        self.norm3 = with_route_norms(block.bn3, norm_factory, ssl_dc.Position.BLOCK)
        self.attention = _or_nothing(block.se)
        everything = _layers(self)
        self.shortcut = with_route_norms(_or_nothing(block.downsample), norm_factory, ssl_dc.Position.DOWNSAMPLE)
        self.drop_path = _or_nothing(block.drop_path)
        self.act3 = block.act3
        sites = SitesOfBlock(name, block.conv1.in_channels, gate_factory)
        grouped = block.conv2.groups > 1
        self.reduced = None if grouped else sites.channel("reduced", block.conv1.out_channels, ["conv1", "conv2"])
        self.hidden = sites.channel("hidden", block.conv2.out_channels, ["conv2", "conv3"])
        self.branch = sites.branch(everything)

    def forward(self, x: Tensor, route: ssl_dc.Route, masks: ssl_dc.Masks) -> Tensor:
        """The block's output for x (N, C, H, W)."""
        reduced = self.act1(apply(self.norm1, self.conv1(x), route))
        if self.reduced is not None:
            reduced = self.reduced(reduced, x, route, masks)
        hidden = self.hidden(self.act2(apply(self.norm2, self.conv2(reduced), route)), x, route, masks)
        branch = self.attention(apply(self.norm3, self.conv3(hidden), route))
        branch = self.drop_path(self.branch(branch, x, route, masks))
        return cast(Tensor, self.act3(branch + apply(self.shortcut, x, route)))


class SitesOfBlock:
    """Makes the gate sites of one block.

    Args:
        name: The block's name in the backbone.
        in_channels: Channels of its input.
        gate_factory: Gives the gates.
    """

    def __init__(self, name: str, in_channels: int, gate_factory: ssl_dc.GateFactory) -> None:
        self.name, self.in_channels, self.gate_factory = name, in_channels, gate_factory

    def channel(self, site: str, channels: int, layers: Sequence[str]) -> ssl_dc.GatePoint:
        """A site on the channels of an activation. Its mask scales the cost of the layers before and after it."""
        return self._point(site, ssl_dc.Granularity.CHANNEL, channels, layers)

    def branch(self, layers: Sequence[str]) -> ssl_dc.GatePoint:
        """A site on the whole branch, which consists of the given layers."""
        return self._point("branch", ssl_dc.Granularity.BRANCH, 1, layers)

    def _point(self, site: str, granularity: ssl_dc.Granularity, channels: int, layers: Sequence[str]) -> ssl_dc.GatePoint:
        full = tuple(f"{self.name}.{layer}" for layer in layers)
        where = ssl_dc.GateSite(f"{self.name}.{site}", granularity, self.in_channels, channels, full)
        return ssl_dc.GatePoint(where, self.gate_factory)


class GatedResNet(nn.Module):
    """A ResNet of timm's without classifier: stem, stages of blocks, global average pool.

    Args:
        name: The network's name in the backbone.
        network: timm's network, whose layers are used. :func:`has_known_blocks` must hold.
        norm_factory: Gives the norms.
        gate_factory: Gives the gates.
    """

    def __init__(
        self, name: str, network: ResNet, norm_factory: ssl_dc.NormFactory, gate_factory: ssl_dc.GateFactory
    ) -> None:
        super().__init__()
        stem = nn.Sequential(network.conv1, network.bn1, network.act1, network.maxpool)
        self.stem = with_route_norms(stem, norm_factory, ssl_dc.Position.STEM)
        self.blocks = nn.ModuleList()
        for number, block in enumerate(_blocks(network)):
            where = f"{name}.blocks.{number}"
            if isinstance(block, BasicBlock):
                self.blocks.append(GatedBasicBlock(where, block, norm_factory, gate_factory))
            else:
                self.blocks.append(GatedBottleneck(where, block, norm_factory, gate_factory))

    def forward(self, images: Tensor, route: ssl_dc.Route) -> tuple[Tensor, ssl_dc.Masks]:
        """Features (N, feature_dim) of images (N, 3, H, W), and the masks of the gated sites."""
        masks: ssl_dc.Masks = {}
        x = apply(self.stem, images, route)
        for block in self.blocks:
            x = block(x, route, masks)
        return x.mean(dim=(2, 3)), masks


def has_known_blocks(network: nn.Module) -> bool:
    """Whether a network of timm's is a ResNet of basic blocks and bottlenecks only."""
    return type(network) is ResNet and all(type(block) in (BasicBlock, Bottleneck) for block in _blocks(network))


def _blocks(network: ResNet) -> list[BasicBlock | Bottleneck]:
    stages = [cast(nn.Sequential, stage) for name, stage in network.named_children() if name.startswith("layer")]
    return [cast("BasicBlock | Bottleneck", block) for stage in stages for block in stage]


def _or_nothing(layer: nn.Module | None) -> nn.Module:
    return nn.Identity() if layer is None else layer


def _layers(module: nn.Module) -> list[str]:
    """Names of the convolutions and linear layers inside a module."""
    return [name for name, layer in module.named_modules() if isinstance(layer, (nn.Conv2d, nn.Linear))]
