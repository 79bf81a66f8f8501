"""ResNets (He et al. 2016) whose residual blocks declare gate sites (method section 3)."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.resources import files
from typing import cast

import torch
from torch import Tensor, nn

from ssl_dc.backbones.base import Backbone, GatePoint, Masks, TimmNetwork
from ssl_dc.backbones.options import STEMS, ResNetOptions
from ssl_dc.errors import ConfigError
from ssl_dc.gating.base import GateFactory
from ssl_dc.gating.sites import GateSite, Granularity
from ssl_dc.norms.base import NormFactory, Position, RouteNorm
from ssl_dc.routes import Route


def convolution(in_channels: int, out_channels: int, kernel: int, stride: int = 1, padding: int | None = None) -> nn.Conv2d:
    """A convolution without bias, with He initialisation. Its padding is "same" unless ``padding`` is given."""
    padding = kernel // 2 if padding is None else padding
    conv = nn.Conv2d(in_channels, out_channels, kernel, stride, padding, bias=False)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    return conv


SAFE_CHANNELS = 16
"""Input channels from which on torch may be given a strided 1x1 convolution.

With fewer of them, in channels-last layout on a CPU with AVX-512, its backward pass writes past the end of a buffer, which
ends the process (uxlfoundation/oneDNN#6035).
"""


class Shortcut(nn.Module):
    """The shortcut of a block whose output has another shape than its input: 1x1 convolution and norm.

    Where torch cannot be given the stride (:data:`SAFE_CHANNELS`), the pixels that it would skip are dropped first.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int, norm_factory: NormFactory) -> None:
        super().__init__()
        self.skip = stride if in_channels < SAFE_CHANNELS else 1
        self.conv = convolution(in_channels, out_channels, kernel=1, stride=stride // self.skip)
        self.norm = norm_factory(out_channels, Position.DOWNSAMPLE)

    def forward(self, x: Tensor, route: Route) -> Tensor:
        """The shortcut (N, out, H / stride, W / stride) of x (N, in, H, W)."""
        if self.skip > 1:
            x = x[:, :, :: self.skip, :: self.skip]
        shortcut: Tensor = self.norm(self.conv(x), route)
        return shortcut


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut, with three gate sites.

    ``positions`` (position): relu(norm1(conv1(x))) and the output of the branch; a shut position saves both convolutions
    there.
    ``hidden`` (channel): relu(norm1(conv1(x))); a shut channel saves its row of conv1 and its column of conv2.
    ``branch`` (branch): both convolutions.

    Args:
        name: The block's name in the backbone, such as ``stages.layer1.0``.
        in_channels: Channels of the block's input.
        planes: Channels of the hidden activation and of the output.
        stride: Stride of the first convolution and of the shortcut.
        norm_factory: Gives the norm layers.
        gate_factory: Gives the gates.
    """

    expansion = 1

    def __init__(
        self,
        name: str,
        in_channels: int,
        planes: int,
        stride: int,
        norm_factory: NormFactory,
        gate_factory: GateFactory,
    ) -> None:
        super().__init__()
        convolutions = (f"{name}.conv1", f"{name}.conv2")
        self.conv1 = convolution(in_channels, planes, kernel=3, stride=stride)
        self.norm1 = norm_factory(planes, Position.BLOCK)
        self.positions = GatePoint(
            GateSite(f"{name}.positions", Granularity.POSITION, in_channels, 1, convolutions), gate_factory
        )
        self.hidden = GatePoint(
            GateSite(f"{name}.hidden", Granularity.CHANNEL, in_channels, planes, convolutions), gate_factory
        )
        self.conv2 = convolution(planes, planes, kernel=3)
        self.norm2 = norm_factory(planes, Position.BLOCK)
        self.branch = GatePoint(GateSite(f"{name}.branch", Granularity.BRANCH, in_channels, 1, convolutions), gate_factory)
        changes = stride != 1 or in_channels != planes
        self.shortcut = Shortcut(in_channels, planes, stride, norm_factory) if changes else None

    def forward(self, x: Tensor, route: Route, masks: Masks) -> Tensor:
        """The block's output (N, planes, H / stride, W / stride) for x (N, in_channels, H, W)."""
        hidden = torch.relu(self.norm1(self.conv1(x), route))
        hidden = self.positions(hidden, x, route, masks)
        hidden = self.hidden(hidden, x, route, masks)
        branch = self.norm2(self.conv2(hidden), route)
        branch = self.positions(branch, x, route, masks)
        branch = self.branch(branch, x, route, masks)
        shortcut = x if self.shortcut is None else self.shortcut(x, route)
        return torch.relu(shortcut + branch)


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions and a shortcut, with four gate sites. The 3x3 convolution has the stride.

    ``positions`` (position): both hidden activations and the output of the branch; a shut position saves all three
    convolutions there. The grid lies over conv1's positions and over those after the stride.
    ``reduced`` (channel): relu(norm1(conv1(x))); a shut channel saves its row of conv1 and its column of conv2.
    ``hidden`` (channel): relu(norm2(conv2(...))); a shut channel saves its row of conv2 and its column of conv3.
    ``branch`` (branch): all three convolutions.

    Args:
        name: The block's name in the backbone, such as ``stages.layer1.0``.
        in_channels: Channels of the block's input.
        planes: Channels of the two hidden activations; the output has four times as many.
        stride: Stride of the 3x3 convolution and of the shortcut.
        norm_factory: Gives the norm layers.
        gate_factory: Gives the gates.
    """

    expansion = 4

    def __init__(
        self,
        name: str,
        in_channels: int,
        planes: int,
        stride: int,
        norm_factory: NormFactory,
        gate_factory: GateFactory,
    ) -> None:
        super().__init__()

        def point(site: str, granularity: Granularity, channels: int, *convolutions: str) -> GatePoint:
            layers = tuple(f"{name}.{conv}" for conv in convolutions)
            return GatePoint(GateSite(f"{name}.{site}", granularity, in_channels, channels, layers), gate_factory)

        out_channels = planes * self.expansion
        self.conv1 = convolution(in_channels, planes, kernel=1)
        self.norm1 = norm_factory(planes, Position.BLOCK)
        self.positions = point("positions", Granularity.POSITION, 1, "conv1", "conv2", "conv3")
        self.reduced = point("reduced", Granularity.CHANNEL, planes, "conv1", "conv2")
        self.conv2 = convolution(planes, planes, kernel=3, stride=stride)
        self.norm2 = norm_factory(planes, Position.BLOCK)
        self.hidden = point("hidden", Granularity.CHANNEL, planes, "conv2", "conv3")
        self.conv3 = convolution(planes, out_channels, kernel=1)
        self.norm3 = norm_factory(out_channels, Position.BLOCK)
        self.branch = point("branch", Granularity.BRANCH, 1, "conv1", "conv2", "conv3")
        changes = stride != 1 or in_channels != out_channels
        self.shortcut = Shortcut(in_channels, out_channels, stride, norm_factory) if changes else None

    def forward(self, x: Tensor, route: Route, masks: Masks) -> Tensor:
        """The block's output (N, 4 * planes, H / stride, W / stride) for x (N, in_channels, H, W)."""
        reduced = self.positions(torch.relu(self.norm1(self.conv1(x), route)), x, route, masks)
        reduced = self.reduced(reduced, x, route, masks)
        hidden = self.positions(torch.relu(self.norm2(self.conv2(reduced), route)), x, route, masks)
        hidden = self.hidden(hidden, x, route, masks)
        branch = self.positions(self.norm3(self.conv3(hidden), route), x, route, masks)
        branch = self.branch(branch, x, route, masks)
        shortcut = x if self.shortcut is None else self.shortcut(x, route)
        return torch.relu(shortcut + branch)


class ResNet(Backbone):
    """A ResNet without classifier: stem, four stages of blocks, global average pool.

    Args:
        options: Width, stem.
        norm_factory: Gives the norm layers.
        gate_factory: Gives the gates.
    """

    architecture: str
    """What torchvision and timm call the network."""
    block: type[BasicBlock | Bottleneck]
    depths: tuple[int, int, int, int]

    def __init__(self, options: ResNetOptions, norm_factory: NormFactory, gate_factory: GateFactory) -> None:
        super().__init__()
        self.options = options
        stem = STEMS[options.stem]
        padding = stem.padding if options.stem_padding is None else options.stem_padding
        self.conv1 = convolution(3, options.width, stem.kernel, stem.stride, padding)
        self.norm1 = norm_factory(options.width, Position.STEM)
        self.pool = nn.MaxPool2d(kernel_size=3, stride=2, padding=1) if stem.pool else nn.Identity()
        self.stages = nn.ModuleDict()
        channels = options.width
        for stage, depth in enumerate(self.depths):
            planes = options.width * 2**stage
            blocks = nn.ModuleList()
            for index in range(depth):
                stride = 2 if stage > 0 and index == 0 else 1
                name = f"stages.layer{stage + 1}.{index}"
                blocks.append(self.block(name, channels, planes, stride, norm_factory, gate_factory))
                channels = planes * self.block.expansion
            self.stages[f"layer{stage + 1}"] = blocks
        self._feature_dim = channels

    @property
    def feature_dim(self) -> int:
        """Width of the features: 8 * width for basic blocks, 32 * width for bottlenecks."""
        return self._feature_dim

    def forward(self, images: Tensor, route: Route) -> tuple[Tensor, Masks]:
        """Features (N, feature_dim) of images (N, 3, H, W), and the masks of the gated sites."""
        masks: Masks = {}
        x = self.pool(torch.relu(self.norm1(self.conv1(images), route)))
        for blocks in self.stages.values():
            for block in cast(nn.ModuleList, blocks):
                x = block(x, route, masks)
        return x.mean(dim=(2, 3)), masks

    def torchvision_state_dict(self, route: Route) -> dict[str, Tensor]:
        """The weights of a route by torchvision's names: all of its ``resnet18`` (34, 50) except ``fc``.

        Raises:
            ConfigError: If the width or the stem is not torchvision's.
        """
        if not self._has_torchvisions_stem():
            raise ConfigError(
                f"torchvision's networks have width 64 and the stem 'imagenet'; this one has width {self.options.width},"
                f" the stem {self.options.stem!r} and padding {self.conv1.padding[0]}: export it as onnx or torch instead"
            )
        return self._state_by_torchvision_names(route)

    def timm_network(self, route: Route) -> TimmNetwork:
        """The weights of a route for timm: for its own ResNet if that has this stem, else for one of :mod:`timm_resnet`."""
        state = self._state_by_torchvision_names(route)
        if self._has_torchvisions_stem():
            return TimmNetwork(self.architecture, {}, state)
        width = self.options.width
        stem = {
            "channels": width,
            "kernel_size": self.conv1.kernel_size[0],
            "stride": self.conv1.stride[0],
            "padding": int(self.conv1.padding[0]),
            "pool": isinstance(self.pool, nn.MaxPool2d),
        }
        arguments = {"channels": [width * 2**stage for stage in range(len(self.depths))], "stem": stem}
        definition = files(__package__).joinpath("timm_resnet.py").read_text(encoding="utf-8")
        return TimmNetwork(f"ssl_dc_{self.architecture}", arguments, state, definition)

    def _has_torchvisions_stem(self) -> bool:
        return (self.options.width, self.options.stem, self.conv1.padding) == (64, "imagenet", (3, 3))

    def _state_by_torchvision_names(self, route: Route) -> dict[str, Tensor]:
        state: dict[str, Tensor] = {}
        for name, layer in self._torchvision_layers():
            plain = layer.for_route(route) if isinstance(layer, RouteNorm) else layer
            state |= {f"{name}.{key}": value for key, value in plain.state_dict().items()}
        return state

    def torchvision_names(self) -> dict[str, str]:
        """Names of the state_dict, with torchvision's for the same weights. Those of gates have none."""
        own = {id(module): name for name, module in self.named_modules()}
        names: dict[str, str] = {}
        for theirs, layer in self._torchvision_layers():
            plain = [layer.for_route(route) for route in Route.BOTH] if isinstance(layer, RouteNorm) else [layer]
            for module in plain:
                names |= {f"{own[id(module)]}.{key}": f"{theirs}.{key}" for key in module.state_dict()}
        return names

    def _torchvision_layers(self) -> Iterator[tuple[str, nn.Module]]:
        """Each convolution and norm, with torchvision's name for it."""
        yield from (("conv1", self.conv1), ("bn1", self.norm1))
        for stage, blocks in self.stages.items():
            for index, block in enumerate(cast(nn.ModuleList, blocks)):
                for name, layer in block.named_children():
                    if isinstance(layer, nn.Conv2d):
                        yield f"{stage}.{index}.{name}", layer
                    elif isinstance(layer, RouteNorm):
                        yield f"{stage}.{index}.bn{name.removeprefix('norm')}", layer
                    elif isinstance(layer, Shortcut):
                        yield f"{stage}.{index}.downsample.0", layer.conv
                        yield f"{stage}.{index}.downsample.1", layer.norm


class ResNet18(ResNet):
    """The backbone ``resnet18``: 2-2-2-2 basic blocks."""

    architecture = "resnet18"
    block = BasicBlock
    depths = (2, 2, 2, 2)


class ResNet34(ResNet):
    """The backbone ``resnet34``: 3-4-6-3 basic blocks."""

    architecture = "resnet34"
    block = BasicBlock
    depths = (3, 4, 6, 3)


class ResNet50(ResNet):
    """The backbone ``resnet50``: 3-4-6-3 bottleneck blocks."""

    architecture = "resnet50"
    block = Bottleneck
    depths = (3, 4, 6, 3)
