"""Gate sites: the places in a backbone where a gating scheme may act."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Granularity(str, Enum):
    """What one entry of a site's mask switches."""

    CHANNEL = "channel"
    """One channel of a hidden activation inside a residual block."""
    BRANCH = "branch"
    """A whole residual branch."""

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True)
class GateSite:
    """A place for a gate, as the backbone declares it.

    Attributes:
        name: Unique in the backbone, such as ``stages.layer1.0.hidden``.
        granularity: What one entry of the mask switches.
        in_channels: Channels of the gate's input, which is the input of the block.
        channels: Width of the mask (N, channels).
        layers: Names of the convolutions whose cost is proportional to the share of the mask that is open.
    """

    name: str
    granularity: Granularity
    in_channels: int
    channels: int
    layers: tuple[str, ...]
