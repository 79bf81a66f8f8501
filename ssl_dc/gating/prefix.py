"""The first channels of each site, the same for all images: a slimmable network (Yu et al. 2019), without any gate.

A control: a gate that chooses channels by the image must beat it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ssl_dc.gating.base import Gate, GatingScheme, PooledRule
from ssl_dc.gating.cost import Trace
from ssl_dc.gating.options import PrefixGatingOptions
from ssl_dc.gating.sites import GateSite, Granularity


class PrefixGate(Gate):
    """Opens the first channels: channel c of C has the logit 0.5 - (c + 0.5) / C, whatever the image.

    Args:
        site: The channel site.
    """

    logits: Tensor

    def __init__(self, site: GateSite) -> None:
        super().__init__(site)
        self.hidden = site.in_channels
        places = (torch.arange(site.channels) + 0.5) / site.channels
        self.register_buffer("logits", 0.5 - places, persistent=False)

    @property
    def macs(self) -> int:
        """Nothing is computed."""
        return 0

    def forward(self, x: Tensor, threshold: Tensor) -> Tensor:
        """The mask (N, channels), the same for each image at one threshold."""
        return (self.logits >= threshold).to(x.dtype).expand(len(x), -1).clone()

    def pooled_rule(self, threshold: Tensor) -> PooledRule:
        """The same rule, with weights of zero."""
        zeros = self.logits.new_zeros
        return PooledRule(zeros(1, self.hidden), zeros(1), zeros(len(self.logits), 1), self.logits - threshold)


class PrefixGating(GatingScheme):
    """The gating scheme ``prefix``. Nothing is learned, so it has no loss."""

    granularity = Granularity.CHANNEL

    def __init__(self, options: PrefixGatingOptions) -> None:
        self.options = options

    def gate(self, site: GateSite) -> PrefixGate:
        """A gate for a channel site."""
        return PrefixGate(site)

    def losses(self, trace: Trace, budget: float, progress: float) -> dict[str, Tensor]:  # noqa: ARG002
        """No terms."""
        return {}
