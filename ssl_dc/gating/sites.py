"""Gate sites: the places in a backbone where a gating scheme may act."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Flag, auto

import torch
from torch import Tensor


class Granularity(Flag):
    """What one entry of a site's mask switches. A scheme that acts on several kinds of site says so by ``|``."""

    CHANNEL = auto()
    """One channel of a hidden activation inside a block, or a group of channels: an attention head, or a group of a grouped
    convolution."""
    BRANCH = auto()
    """A whole residual branch."""
    POSITION = auto()
    """The positions (pixels) of a block's activations that lie in one cell of a grid."""

    @property
    def kinds(self) -> tuple[Granularity, ...]:
        """The single kinds of which this consists."""
        return tuple(kind for kind in Granularity if kind in self)

    def __str__(self) -> str:
        return " and ".join((kind.name or "").lower() for kind in self.kinds)


@dataclass(frozen=True)
class GateSite:
    """A place for a gate, as the backbone declares it.

    Attributes:
        name: Unique in the backbone, such as ``stages.layer1.0.hidden``.
        granularity: What one entry of the mask switches.
        in_channels: Channels of the gate's input, which is the input of the block.
        channels: Width of the mask (N, channels): its number of entries.
        layers: Names of the convolutions, linear layers and attention products whose cost is proportional to the share of
            the mask that is open.
        axis: The axis of the gated activation that holds the channels: 1 in (N, C, H, W), -1 in tokens (N, T, C).
        grid: At a position site, rows and columns of the grid of cells that lies over the activation (N, C, H, W). The mask
            has an entry for each cell, row by row. A backbone declares one cell; a gate may act on a finer grid
            (:meth:`on_grid`).
    """

    name: str
    granularity: Granularity
    in_channels: int
    channels: int
    layers: tuple[str, ...]
    axis: int = 1
    grid: tuple[int, int] = (1, 1)

    def on_grid(self, rows: int, columns: int) -> GateSite:
        """The same position site with a mask of this many cells."""
        return replace(self, channels=rows * columns, grid=(rows, columns))


def masked(activation: Tensor, mask: Tensor, site: GateSite) -> Tensor:
    """An activation in which everything that the mask of a site shuts is 0.

    Args:
        activation: (N, C, H, W) at a position site. Elsewhere it may have any shape (N, ...). Its size along the axis of
            the site is then a multiple of the width of the mask, and each entry acts on as many neighbouring channels. The
            axis does not matter for a mask of width 1, which acts on the whole activation.
        mask: (N, channels of the site), or (1, channels of the site) for all images.
        site: The site.
    """
    if site.granularity is Granularity.POSITION:
        return activation * over_positions(mask, site.grid, activation.shape[2:])
    entries, axis = mask.shape[1], site.axis
    if entries not in (1, activation.shape[axis]):
        mask = mask.repeat_interleave(activation.shape[axis] // entries, dim=1)
    shape = [1] * activation.ndim
    shape[0], shape[axis] = mask.shape
    return activation * mask.view(shape)


def over_positions(mask: Tensor, grid: tuple[int, int], size: Sequence[int]) -> Tensor:
    """A mask of cells (N, rows * columns) as a mask of positions (N, 1, H, W): each has the value of its cell."""
    rows, columns = (cells_along(positions, cells, mask.device) for positions, cells in zip(size, grid, strict=True))
    return mask.view(-1, 1, *grid)[:, :, rows][:, :, :, columns]


def cells_along(positions: int, cells: int, device: torch.device | None = None) -> Tensor:
    """The cell of each position along one side of a grid, (positions,) int64: floor(position * cells / positions).

    This is nearest-neighbour upsampling, in whole numbers.
    """
    return torch.arange(positions, device=device) * cells // positions


def positions_in_cells(grid: tuple[int, int], size: Sequence[int]) -> tuple[int, ...]:
    """How many positions of an activation of size (H, W) lie in each cell of a grid, row by row."""
    rows, columns = (
        cells_along(positions, cells).bincount(minlength=cells) for positions, cells in zip(size, grid, strict=True)
    )
    return tuple(torch.outer(rows, columns).flatten().tolist())
