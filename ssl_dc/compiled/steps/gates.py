"""The decisions of gates, the budget at which they decide, and the masks that they make."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from ssl_dc.compiled.steps.base import Step
from ssl_dc.gating.base import Gate, PooledRule
from ssl_dc.gating.sites import GateSite


@dataclass
class Dial:
    """The budget at which all gates of a plan decide. It may be turned between two calls.

    Attributes:
        budget: A share of the dense cost; None for the budget that the network was trained for.
    """

    budget: float | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Decide(Step):
    """The decision of a gate. ``output`` is the name of the site; no value is computed.

    Attributes:
        input: Name of the value that the gate decides on.
        site: The site.
        gate: The gate.
        dial: The budget of the route, the same object in all decisions of a plan.
        axis: The axis of the channels of the input: 1 in (N, C, H, W), -1 in (N, T, C) and (N, H, W, C). Tokens reach the
            gate as an image of one column, (N, C, T, 1).
    """

    input: str
    site: GateSite
    gate: Gate
    dial: Dial = field(default_factory=Dial)
    axis: int = 1

    @property
    def inputs(self) -> tuple[str, ...]:
        """The value that the gate decides on."""
        return (self.input,)

    @property
    def threshold(self) -> Tensor:
        """The thresholds of the gate at the budget, (channels,)."""
        return self.gate.threshold_for(self.dial.budget)

    @property
    def rule(self) -> PooledRule | None:
        """The decision at the budget as a rule on the means of the input; None if the gate has no such rule."""
        return self.gate.pooled_rule(self.threshold)


@dataclass(frozen=True, kw_only=True, eq=False)
class Mask(Step):
    """A value times the mask of a site, where no layer takes the mask over."""

    input: str
    site: GateSite

    @property
    def inputs(self) -> tuple[str, ...]:
        """The masked value."""
        return (self.input,)
