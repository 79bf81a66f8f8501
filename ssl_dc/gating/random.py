"""As many channels as the budget pays for, drawn anew for each image: what gates are worth that choose nothing.

A control: a gate that chooses channels by the image must beat it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ssl_dc.gating.base import Gate, GatingScheme
from ssl_dc.gating.cost import Trace
from ssl_dc.gating.options import RandomGatingOptions
from ssl_dc.gating.sites import GateSite, Granularity


class RandomGate(Gate):
    """Opens channels by chance: each has a logit that is uniform in [-0.5, 0.5).

    In training they are drawn from torch's generator. In evaluation mode they must be the same each time, and are a hash of
    the image: the digits that remain of large sines of multiples of a random sum of the mean input.

    Args:
        site: The channel site.
    """

    weights: Tensor
    multiples: Tensor

    def __init__(self, site: GateSite) -> None:
        super().__init__(site)
        generator = torch.Generator().manual_seed(0)
        self.register_buffer("weights", torch.randn(site.in_channels, generator=generator), persistent=False)
        self.register_buffer("multiples", torch.randn(site.channels, generator=generator), persistent=False)

    @property
    def macs(self) -> int:
        """A draw costs nothing; the hash that stands for one has no matrix product."""
        return 0

    def forward(self, x: Tensor, threshold: Tensor) -> Tensor:
        """The mask (N, channels)."""
        if self.training:
            logits = torch.rand(len(x), len(self.multiples), device=x.device) - 0.5
        else:
            sums = (x.mean(dim=(2, 3)).float() * self.weights.float()).sum(dim=1, keepdim=True)
            logits = (1e4 * torch.sin(sums * self.multiples.float())).remainder(1) - 0.5
        return (logits >= threshold).to(x.dtype)


class RandomGating(GatingScheme):
    """The gating scheme ``random``. Nothing is learned, so it has no loss."""

    granularity = Granularity.CHANNEL

    def __init__(self, options: RandomGatingOptions) -> None:
        self.options = options

    def gate(self, site: GateSite) -> RandomGate:
        """A gate for a channel site."""
        return RandomGate(site)

    def losses(self, trace: Trace, budget: float, progress: float) -> dict[str, Tensor]:  # noqa: ARG002
        """No terms."""
        return {}
