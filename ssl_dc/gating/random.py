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
    the image: the digits that remain of large sines of random sums of the mean input.

    Args:
        site: The channel site.
    """

    sums: Tensor

    def __init__(self, site: GateSite) -> None:
        super().__init__(site)
        drawn = torch.randn(site.in_channels, site.channels, generator=torch.Generator().manual_seed(0))
        self.register_buffer("sums", drawn, persistent=False)

    @property
    def macs(self) -> int:
        """The draw is not counted: it stands for a choice that costs nothing."""
        return 0

    def forward(self, x: Tensor, threshold: Tensor) -> Tensor:
        """The mask (N, channels)."""
        if self.training:
            logits = torch.rand(len(x), self.sums.shape[1], device=x.device) - 0.5
        else:
            logits = (1e4 * torch.sin(x.mean(dim=(2, 3)).float() @ self.sums.float())).remainder(1) - 0.5
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
