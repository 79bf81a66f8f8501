"""DGNet's dual gating, of channels and positions (Li et al. 2021, "Dynamic Dual Gating Neural Networks")."""

from __future__ import annotations

import math

from torch import Tensor

from ssl_dc.gating.base import Gate, GatingScheme
from ssl_dc.gating.cost import Trace
from ssl_dc.gating.dgnet import DGNetGate, bound_term, budget_penalty, diversity_terms
from ssl_dc.gating.dgnet_spatial import DGNetSpatialGate
from ssl_dc.gating.options import DGNetDualOptions
from ssl_dc.gating.sites import GateSite, Granularity


class DGNetDual(GatingScheme):
    """The gating scheme ``dgnet_dual``: a spatial gate for each block, and a channel gate for each hidden activation.

    The gates decide by themselves. A number is computed where its channel and its position are both open.
    """

    granularity = Granularity.CHANNEL | Granularity.POSITION

    def __init__(self, options: DGNetDualOptions) -> None:
        self.options = options

    def gate(self, site: GateSite) -> Gate:
        """A gate for a channel site or a position site."""
        over_positions = site.granularity is Granularity.POSITION
        return DGNetSpatialGate(site, self.options) if over_positions else DGNetGate(site, self.options)

    def losses(self, trace: Trace, budget: float, progress: float) -> dict[str, Tensor]:
        """The budget penalty, a bound term for each kind of gate, as in DGNet, and the diversity of channels.

        The bounds are around sqrt(t_d): where both gates of a block open that share, the block costs t_d.
        """
        target = math.sqrt(budget)
        spatial = trace.cost.position_sites
        densities = trace.densities()
        channels = [share for site, share in densities.items() if site not in spatial]
        positions = [share for site, share in densities.items() if site in spatial]
        return {
            "budget": budget_penalty(self.options, trace, budget),
            "bound_channels": bound_term(self.options, channels, target, progress),
            "bound_positions": bound_term(self.options, positions, target, progress),
            **diversity_terms(self.options, [mask for site, mask in trace.masks.items() if site not in spatial]),
        }
