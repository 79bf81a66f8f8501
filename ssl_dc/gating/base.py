"""What a gate and a gating scheme are."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence, Sized
from functools import cache
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ssl_dc.devices import without_wait
from ssl_dc.errors import DialledWarning
from ssl_dc.gating.cost import Trace
from ssl_dc.gating.sites import GateSite, Granularity
from ssl_dc.routes import Budget


class PooledRule(NamedTuple):
    """A decision in evaluation mode that depends on the mean of each input channel only.

    An entry of the mask is open where ``bias + weight . relu(hidden_bias + hidden_weight . mean) >= 0``.

    Attributes:
        hidden_weight: (hidden, in_channels).
        hidden_bias: (hidden,).
        weight: (channels, hidden).
        bias: (channels,). The threshold is subtracted here.
    """

    hidden_weight: Tensor
    hidden_bias: Tensor
    weight: Tensor
    bias: Tensor


class Gate(nn.Module, ABC):
    """Decides, for each image, which entries of one site's mask are open.

    An entry is open when its logit reaches its threshold, so a larger threshold makes the network cheaper. A gate keeps
    thresholds for a set of budgets. When it is called, it is given those of the route's budget. A gate that ignores them
    says so by ``heeds_threshold = False``; its budget then cannot be steered.

    Args:
        site: The site that the gate acts on.

    Attributes:
        site: The same. A gate of positions may act on a finer grid than the backbone declared.
        budgets: Buffer (B,) float32: the budgets that have thresholds, ascending, in (0, 1]. B is 1 to begin with.
        usual: The row of the budget that is meant where none is named.
        thresholds: Buffer (B, channels) float32: the thresholds of each budget. They are 0 until the budget control moves
            them.
        heeds_threshold: Whether the mask depends on the threshold in evaluation mode.
    """

    heeds_threshold: bool = True
    budgets: Tensor
    thresholds: Tensor

    def __init__(self, site: GateSite) -> None:
        super().__init__()
        self.site = site
        self.usual = 0
        self.register_buffer("budgets", torch.ones(1))
        self.register_buffer("thresholds", torch.zeros(1, site.channels))

    @property
    @abstractmethod
    def macs(self) -> int:
        """Cost of the gate's decision for one image, in MACs."""

    @abstractmethod
    def forward(self, x: Tensor, threshold: Tensor) -> Tensor:
        """The mask (N, channels) for the block's input: exactly 0 or 1, in the dtype of the input.

        In training mode the mask may be random, and it carries a gradient (straight-through or other). In evaluation mode
        the mask is deterministic.

        Args:
            x: The input of the block, (N, in_channels, H, W).
            threshold: What the logits are compared with: (channels,), or (N, channels) with a row for each image.
        """

    def pooled_rule(self, threshold: Tensor) -> PooledRule | None:  # noqa: ARG002  # here there is no rule
        """The decision in evaluation mode as a rule that compiled code can follow without calling the gate.

        The default is None: compiled code then calls the gate.

        Args:
            threshold: What the logits are compared with, (channels,).
        """
        return None

    def threshold_for(self, budget: Budget) -> Tensor:
        """The thresholds at a budget, in logits.

        They are exact at a stored budget, interpolated linearly between two of them, and those of the nearest one outside.

        Args:
            budget: A share of the dense cost, a tuple with one share for each image, or None for the usual one.

        Returns:
            (channels,), or (N, channels) for a tuple.
        """
        if budget is None:
            return self.thresholds[self.usual]
        # A GPU makes a single number itself: it would wait for a copy.
        asked = self.budgets.new_tensor(budget) if isinstance(budget, tuple) else self.budgets.new_full((1,), budget)
        upper = (self.budgets < asked[:, None]).sum(dim=1).clamp(max=len(self.budgets) - 1)
        lower = (upper - 1).clamp(min=0)
        low, high = self.budgets[lower], self.budgets[upper]
        share = ((asked - low) / (high - low).clamp(min=torch.finfo(low.dtype).tiny)).clamp(0, 1)
        rows = torch.lerp(self.thresholds[lower], self.thresholds[upper], share[:, None])
        return rows if isinstance(budget, tuple) else rows[0]


GateFactory = Callable[[GateSite], Gate | None]
"""A backbone calls it with each site that it declares. None leaves the site open for good."""


def no_gates(site: GateSite) -> None:
    """The gate factory of a network without gates."""


class GatingScheme(ABC):
    """How gates decide, and the loss that trains them. A scheme never sees an objective."""

    @property
    @abstractmethod
    def granularity(self) -> Granularity | None:
        """The kind of gate site that the scheme acts on, or several kinds joined by ``|``; None if it gates nothing."""

    @abstractmethod
    def gate(self, site: GateSite) -> Gate:
        """A new gate for a site of the scheme's granularity."""

    @abstractmethod
    def losses(self, trace: Trace, budget: float, progress: float) -> dict[str, Tensor]:
        """The named loss terms of one gated view, weights included. Their sum is added to the objective's loss.

        Args:
            trace: The masks of the view, with their gradients, and their cost.
            budget: The target share of the dense cost, t_d, in (0, 1].
            progress: The share of training done, in [0, 1].
        """

    def make_gate(self, site: GateSite) -> Gate | None:
        """The scheme as a gate factory: a gate at a site of the scheme's granularity, None at any other site."""
        acts_here = self.granularity is not None and site.granularity in self.granularity
        return self.gate(site) if acts_here else None


def set_budgets(module: nn.Module, budgets: Sequence[float], usual: float | None = None) -> None:
    """Give every gate inside a module thresholds for a set of budgets: those that the gate had at these budgets.

    A gate with one budget had the same thresholds at every budget.

    Args:
        module: Its gates are changed.
        budgets: Shares of the dense cost in (0, 1], ascending, all different.
        usual: The one of them that is meant where none is named; by default the first.

    Raises:
        ValueError: If the budgets are not such, or the usual one is not among them.
    """
    ascending = all(low < high for low, high in pairwise(budgets))
    if not budgets or not ascending or not all(0 < budget <= 1 for budget in budgets):
        raise ValueError(f"budgets must be ascending, above 0 and at most 1, not {list(budgets)}")
    row = 0 if usual is None else list(budgets).index(usual)
    for gate in gates_of(module):
        one = len(gate.budgets) == 1
        gate.thresholds = gate.thresholds.repeat(len(budgets), 1) if one else gate.threshold_for(tuple(budgets))
        gate.budgets = gate.budgets.new_tensor(budgets)
        gate.usual = row


FAR = 1e4
"""A threshold that no logit reaches; minus this, one that each logit does."""


@torch.no_grad()
def threshold_fault(gate: Gate, x: Tensor) -> str:
    """How a gate fails to follow its threshold, as the end of a sentence; empty if it follows it, or says that it does not.

    Args:
        gate: In evaluation mode.
        x: Inputs of its block, (N, in_channels, H, W).
    """
    if not gate.heeds_threshold:
        return ""
    lowest, highest = (gate.forward(x, torch.full_like(gate.thresholds[0], threshold)) for threshold in (-FAR, FAR))
    if not bool(lowest.any()):
        return (
            f"shuts every entry of its mask for each of {len(x)} images, even at the threshold {-FAR:,.0f}; an entry must"
            " be 1 where its logit reaches the threshold"
        )
    if torch.equal(lowest, highest):
        return (
            f"gives the same mask at the thresholds {-FAR:,.0f} and {FAR:,.0f}, so that its budget cannot be met; an entry"
            " must be 1 where its logit reaches the threshold, else 0 (or the gate says heeds_threshold = False)"
        )
    return ""


TIE_BREAK = 1e-3
"""How far the thresholds of the channels of one gate lie from their common value at most, in logits."""


def set_threshold(module: nn.Module, threshold: float | Tensor, row: int = 0) -> None:
    """Set the thresholds of one budget, in every gate inside a module.

    The thresholds of a gate's channels differ slightly. A gate whose hidden units are all 0 for an image gives every
    channel the logit 0. One threshold for all channels could then only open all of them or none.

    Args:
        module: Its gates are changed.
        threshold: In logits. A scalar tensor on the device of the gates is not waited for.
        row: The number of the budget among the gates' budgets.
    """
    for gate in gates_of(module):
        gate.thresholds[row].copy_(threshold + _apart(gate.thresholds.shape[1], gate.thresholds.device))


@cache
def _apart(channels: int, device: torch.device) -> Tensor:
    """How far the thresholds of the channels of one gate lie from their common value, (channels,), in logits."""
    spread = torch.linspace(-1, 1, channels) if channels > 1 else torch.zeros(1)
    return without_wait(TIE_BREAK * spread, device)


def beyond_budgets(gates: Sequence[Gate], budget: Budget) -> list[float]:
    """The budgets that lie outside those for which gates have thresholds: they get those of the nearest one."""
    if not gates or budget is None:
        return []
    stored = gates[0].budgets
    low, high = float(stored[0]) - NEAR, float(stored[-1]) + NEAR
    return sorted({each for each in (budget if isinstance(budget, tuple) else (budget,)) if not low <= each <= high})


def check_budgets(budget: Budget, images: Sized) -> None:
    """Check that there is one budget for all images of a batch, or one for each.

    Raises:
        ValueError: If it is not so.
    """
    if isinstance(budget, tuple) and len(budget) != len(images):
        raise ValueError(f"there are {len(budget)} budgets for {len(images)} images")


def warn_beyond(gates: Sequence[Gate], budget: Budget, stacklevel: int) -> None:
    """Warn of budgets that gates have no thresholds for (:class:`DialledWarning`).

    Args:
        gates: Those of a network.
        budget: The budget of a call.
        stacklevel: That of ``warnings.warn``, seen from here.
    """
    if beyond := beyond_budgets(gates, budget):
        named = ", ".join(f"{each:g}" for each in beyond)
        ends = sorted({float(gates[0].budgets[-1 if each > gates[0].budgets[-1] else 0]) for each in beyond})
        nearest = " or ".join(f"{each:g}" for each in ends)
        warnings.warn(
            f"the gates have no thresholds for a budget of {named}, and take those of the nearest one, {nearest};"
            " ssl_dc.dialled calibrates thresholds for any budget",
            DialledWarning,
            stacklevel=stacklevel,
        )


NEAR = 1e-6
"""Budgets nearer than this are the same; buffers hold them in float32."""


def gates_of(module: nn.Module) -> list[Gate]:
    """Every gate inside a module."""
    return [child for child in module.modules() if isinstance(child, Gate)]
