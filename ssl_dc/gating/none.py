"""No gating: every site stays open, as in the dense baseline (VICReg, Baseline-1)."""

from __future__ import annotations

from torch import Tensor

from ssl_dc.gating.base import Gate, GatingScheme
from ssl_dc.gating.cost import Trace
from ssl_dc.gating.options import NoGatingOptions
from ssl_dc.gating.sites import GateSite


class NoGating(GatingScheme):
    """The gating scheme ``none``: the network has no gate, hence no gated route."""

    granularity = None

    def __init__(self, options: NoGatingOptions) -> None:
        self.options = options

    def gate(self, site: GateSite) -> Gate:
        """This is never called, since the scheme has no granularity.

        Raises:
            ValueError: Always.
        """
        raise ValueError(f"gating 'none' has no gate for site {site.name!r}")

    def losses(self, trace: Trace, budget: float, progress: float) -> dict[str, Tensor]:  # noqa: ARG002
        """No terms."""
        return {}
