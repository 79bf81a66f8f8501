"""Gate sites: the places in a backbone where a gating scheme may act."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from torch import Tensor


class Granularity(str, Enum):
    """What one entry of a site's mask switches."""

    CHANNEL = "channel"
    """One channel of a hidden activation inside a block, or a group of channels: an attention head, or a group of a grouped
    convolution."""
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
        layers: Names of the convolutions, linear layers and attention products whose cost is proportional to the share of
            the mask that is open.
        axis: The axis of the gated activation that holds the channels: 1 in (N, C, H, W), -1 in tokens (N, T, C).
    """

    name: str
    granularity: Granularity
    in_channels: int
    channels: int
    layers: tuple[str, ...]
    axis: int = 1


def masked(activation: Tensor, mask: Tensor, axis: int) -> Tensor:
    """An activation in which everything that a mask shuts is 0.

    Args:
        activation: Of any shape (N, ...). Its size along ``axis`` is a multiple of the width of the mask. Each entry of the
            mask acts on as many neighbouring channels.
        mask: (N, entries), or (1, entries) for all images.
        axis: The axis of the channels. It does not matter for a mask of width 1, which acts on the whole activation.
    """
    entries = mask.shape[1]
    if entries not in (1, activation.shape[axis]):
        mask = mask.repeat_interleave(activation.shape[axis] // entries, dim=1)
    shape = [1] * activation.ndim
    shape[0], shape[axis] = mask.shape
    return activation * mask.view(shape)
