"""What a gate and a gating scheme are."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ssl_dc.gating.cost import Trace
from ssl_dc.gating.sites import GateSite, Granularity


class PooledRule(NamedTuple):
    """A decision in evaluation mode that looks at nothing but the mean of each input channel.

    An entry of the mask is open where ``bias + weight . relu(hidden_bias + hidden_weight . mean) >= 0``.

    Attributes:
        hidden_weight: (hidden, in_channels).
        hidden_bias: (hidden,).
        weight: (channels, hidden).
        bias: (channels,); minus the threshold, and whatever else.
    """

    hidden_weight: Tensor
    hidden_bias: Tensor
    weight: Tensor
    bias: Tensor


class Gate(nn.Module, ABC):
    """Decides, for each image, which entries of one site's mask are open.

    Attributes:
        threshold: Buffer (channels,): an entry is open when its logit reaches it. 0 unless the budget control moves it; the
            larger, the cheaper the network. A gate whose decision has no threshold may ignore it; the budget then cannot
            be steered.

    Args:
        site: The site that the gate acts on.
    """

    threshold: Tensor

    def __init__(self, site: GateSite) -> None:
        super().__init__()
        self.register_buffer("threshold", torch.zeros(site.channels))

    @property
    @abstractmethod
    def macs(self) -> int:
        """Cost of the gate's decision for one image, in MACs."""

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """The mask (N, channels) for the input x (N, in_channels, H, W) of the block: exactly 0 or 1, in x's dtype.

        In training mode it may be stochastic and carries a gradient (straight-through or other); in evaluation mode it is
        deterministic.
        """

    def pooled_rule(self) -> PooledRule | None:
        """The decision in evaluation mode as a rule that compiled code can follow without calling the gate.

        None, as here, for a gate whose decision is no such rule: compiled code then calls it.
        """
        return None


GateFactory = Callable[[GateSite], Gate | None]
"""Asked by a backbone for the gate of each site it declares; None leaves the site open for good."""


def no_gates(site: GateSite) -> None:  # a GateFactory, which is given the site
    """The gate factory of a network without gates."""


class GatingScheme(ABC):
    """How gates decide, and the loss that trains them. It never sees an objective."""

    @property
    @abstractmethod
    def granularity(self) -> Granularity | None:
        """The kind of gate site the scheme acts on; None when it gates nothing."""

    @abstractmethod
    def gate(self, site: GateSite) -> Gate:
        """A new gate for a site of the scheme's granularity."""

    @abstractmethod
    def losses(self, trace: Trace, budget: float, progress: float) -> dict[str, Tensor]:
        """The named loss terms of one gated view, weights included; their sum joins the objective's loss.

        Args:
            trace: The masks of the view, with their gradients, and their cost.
            budget: The target share of the dense cost, t_d, in (0, 1].
            progress: The share of training done, in [0, 1].
        """

    def make_gate(self, site: GateSite) -> Gate | None:
        """The scheme as a gate factory: a gate where the site's granularity is the scheme's, else None."""
        return self.gate(site) if site.granularity is self.granularity else None


TIE_BREAK = 1e-3
"""How far, in logits, the thresholds of the channels of one gate lie from their common value at most."""


def set_threshold(module: nn.Module, threshold: float) -> None:
    """Set the threshold of every gate inside a module.

    The channels of a gate get a hair's breadth of difference. A gate whose hidden units are all shut for an image gives
    every channel the logit 0, and one threshold for all could then only open all of them or none.
    """
    for gate in gates_of(module):
        channels = len(gate.threshold)
        spread = torch.linspace(-1, 1, channels) if channels > 1 else torch.zeros(1)
        gate.threshold.copy_(threshold + TIE_BREAK * spread)


def gates_of(module: nn.Module) -> list[Gate]:
    """Every gate inside a module."""
    return [child for child in module.modules() if isinstance(child, Gate)]
