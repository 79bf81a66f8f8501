"""DGNet spatial gating (Li et al. 2021, "Dynamic Dual Gating Neural Networks", section 3.1; code: CAS-CLab/DGNet)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from ssl_dc.gating.base import GatingScheme
from ssl_dc.gating.cost import Trace
from ssl_dc.gating.dgnet import SampledGate, bound_term, budget_penalty
from ssl_dc.gating.options import DGNetSpatialOptions
from ssl_dc.gating.sites import GateSite, Granularity


class DGNetSpatialGate(SampledGate):
    """One gate: logits = W . pool(x), one for each cell of a grid that lies over the positions of the block.

    ``pool`` takes the mean over each cell of the block's input; W is a 3x3 convolution to one channel, without bias.

    Args:
        site: The position site that the gate acts on.
        options: Grid, temperature, noise.
    """

    def __init__(self, site: GateSite, options: DGNetSpatialOptions) -> None:
        super().__init__(site.on_grid(options.grid, options.grid), options)
        self.attend = nn.Conv2d(site.in_channels, 1, kernel_size=3, padding=1, bias=False)

    @property
    def macs(self) -> int:
        """Cost of the 3x3 convolution on the cells."""
        return self.attend.weight.numel() * self.site.channels

    def logits(self, x: Tensor) -> Tensor:
        """Logits (N, cells) in float32, row by row; the threshold is not yet subtracted."""
        logits: Tensor = self.attend(F.adaptive_avg_pool2d(x, self.site.grid))
        return logits.flatten(1).float()


class DGNetSpatial(GatingScheme):
    """The gating scheme ``dgnet_spatial``."""

    granularity = Granularity.POSITION

    def __init__(self, options: DGNetSpatialOptions) -> None:
        self.options = options

    def gate(self, site: GateSite) -> DGNetSpatialGate:
        """A gate for a position site."""
        return DGNetSpatialGate(site, self.options)

    def losses(self, trace: Trace, budget: float, progress: float) -> dict[str, Tensor]:
        """The budget penalty and the bound term of DGNet.

        The bound is around t_d itself, since one gate a block has to save the whole budget. DGNet's is around sqrt(t_d),
        because there a channel gate saves the other half.
        """
        return {
            "budget": budget_penalty(self.options, trace, budget),
            "bound": bound_term(self.options, trace.densities().values(), budget, progress),
        }
