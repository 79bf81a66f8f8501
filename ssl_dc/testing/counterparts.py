"""Small encoders, networks, gates and images, which stand in for the other parts while one part is checked."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ssl_dc.backbones.base import Backbone, Masks
from ssl_dc.backbones.resnet import BasicBlock, convolution
from ssl_dc.encoders.base import Encoder
from ssl_dc.encoders.options import SharedEncoderOptions
from ssl_dc.encoders.shared import SharedEncoder
from ssl_dc.gating.base import Gate, GateFactory, GatingScheme
from ssl_dc.gating.cost import Trace
from ssl_dc.gating.none import NoGating
from ssl_dc.gating.options import NoGatingOptions
from ssl_dc.gating.sites import GateSite, Granularity
from ssl_dc.norms.base import NormFactory, Position
from ssl_dc.routes import Route

FLAT_SIZE = 4
"""Side of the images of the flat encoder, in pixels."""
FLAT_FEATURES = 12
"""Width of its features."""


def random_images(count: int, size: int, seed: int = 0) -> Tensor:
    """Images (count, 3, size, size) of normal noise. The same seed gives the same images."""
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(seed))


def similar_views(count: int, size: int, views: int) -> list[Tensor]:
    """Views of the same images that resemble one another. The two halves of the batch differ in mean and spread."""
    first = random_images(count, size)
    first[count // 2 :] = 2 * first[count // 2 :] + 1
    return [first, *(first + 0.3 * random_images(count, size, seed=number) for number in range(1, views))]


class FlatBackbone(Backbone):
    """A backbone without batch statistics and gate sites. With it, differences in a check come from the objective."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(3 * FLAT_SIZE**2, 16), nn.Tanh(), nn.Linear(16, FLAT_FEATURES))

    @property
    def feature_dim(self) -> int:
        """Width of the features."""
        return FLAT_FEATURES

    def forward(self, images: Tensor, route: Route) -> tuple[Tensor, Masks]:  # noqa: ARG002  # both routes are the same
        """Features (N, feature_dim), and no masks."""
        return self.layers(images), {}


def flat_encoder() -> Encoder:
    """An encoder around :class:`FlatBackbone`."""
    return SharedEncoder(SharedEncoderOptions(), lambda _gate_factory: FlatBackbone(), NoGating(NoGatingOptions()))


class SmallBackbone(Backbone):
    """Two residual blocks with sites of each kind, for encoders and gating schemes.

    Args:
        norm_factory: Gives the norm layers.
        gate_factory: Gives the gates.
    """

    def __init__(self, norm_factory: NormFactory, gate_factory: GateFactory) -> None:
        super().__init__()
        self.stem = convolution(3, 8, kernel=3, stride=2)
        self.norm = norm_factory(8, Position.STEM)
        self.blocks = nn.ModuleList(
            [
                BasicBlock("blocks.0", 8, 8, 1, norm_factory, gate_factory),
                BasicBlock("blocks.1", 8, 12, 2, norm_factory, gate_factory),
            ]
        )

    @property
    def feature_dim(self) -> int:
        """Width of the features."""
        return 12

    def forward(self, images: Tensor, route: Route) -> tuple[Tensor, Masks]:
        """Features (N, 12) of images (N, 3, H, W), and the masks of the gated sites."""
        masks: Masks = {}
        x = torch.relu(self.norm(self.stem(images), route))
        for block in self.blocks:
            x = block(x, route, masks)
        return x.mean(dim=(2, 3)), masks


class LinearGate(Gate):
    """A gate of one linear layer on the pooled input, without noise, with a straight-through gradient."""

    def __init__(self, site: GateSite) -> None:
        super().__init__(site)
        self.layer = nn.Linear(site.in_channels, site.channels)

    @property
    def macs(self) -> int:
        """Cost of the layer."""
        return self.layer.weight.numel()

    def forward(self, x: Tensor, threshold: Tensor) -> Tensor:
        """The mask (N, channels)."""
        soft = torch.sigmoid(self.layer(x.mean(dim=(2, 3))).float() - threshold)
        hard = (soft >= 0.5).to(soft.dtype)
        return (hard + (soft - soft.detach()) if self.training else hard).to(x.dtype)


class LinearGating(GatingScheme):
    """Linear gates at every site of a granularity.

    Args:
        granularity: Where the gates are.
    """

    granularity = Granularity.CHANNEL

    def __init__(self, granularity: Granularity = Granularity.CHANNEL) -> None:
        self.granularity = granularity

    def gate(self, site: GateSite) -> Gate:
        """A linear gate."""
        return LinearGate(site)

    def losses(self, trace: Trace, budget: float, progress: float) -> dict[str, Tensor]:  # noqa: ARG002
        """The squared distance to the budget."""
        return {"budget": (trace.ratio().mean() - budget).square()}


class SwitchGate(Gate):
    """A gate without parameters. Its mask is set from outside, and it keeps the width of its last input.

    Attributes:
        mask: (channels,) in {0, 1}, the mask of every image.
        seen_channels: Channels of its last input; None before the first.
    """

    mask: Tensor

    def __init__(self, site: GateSite) -> None:
        super().__init__(site)
        self.register_buffer("mask", torch.ones(site.channels))
        self.seen_channels: int | None = None

    @property
    def macs(self) -> int:
        """Nothing."""
        return 0

    def forward(self, x: Tensor, threshold: Tensor) -> Tensor:  # noqa: ARG002  # the mask is set from outside
        """The mask (N, channels) that was set."""
        self.seen_channels = x.shape[1]
        return self.mask.to(x.dtype).expand(x.shape[0], -1)
