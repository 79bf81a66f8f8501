"""The cost of a network in multiply-accumulates (MACs; the paper calls them FLOPs), dense and under given masks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ssl_dc.devices import in_float64
from ssl_dc.gating.sites import GateSite

ImageSize = int | tuple[int, int]
"""The side of a square image, or height and width, in pixels."""


def image_size_of(images: Tensor) -> ImageSize:
    """The size of images (N, C, H, W)."""
    height, width = images.shape[2:]
    return height if height == width else (height, width)


def height_and_width(size: ImageSize) -> tuple[int, int]:
    """Height and width of an image size."""
    return (size, size) if isinstance(size, int) else size


Cells = tuple[int, ...]
"""How many positions of a layer's output lie in each cell of a grid, row by row."""


@dataclass(frozen=True)
class LayerCost:
    """The cost of one layer for one image.

    Attributes:
        name: The layer's name in the backbone, or the gate's.
        macs: Its cost when nothing is gated.
        sites: The gate sites that scale the cost: the gated cost is ``macs`` times the open share of each of them.
        gate: Whether the layer belongs to a gate. Only the gated route runs it.
        cells: For each position site among ``sites``: how many positions of the layer's output lie in each cell of its
            grid. The open share is that of the positions; at any other site it is that of the entries of the mask.
    """

    name: str
    macs: int
    sites: tuple[str, ...] = ()
    gate: bool = False
    cells: Mapping[str, Cells] = field(default_factory=dict)

    def open_share(self, masks: Mapping[str, Tensor]) -> Tensor:
        """The share of its dense cost that the layer pays under masks (N, channels) of its sites: (N,) float32.

        A layer without sites pays 1, as a tensor without axes.
        """
        share = torch.ones(())
        for site in self.sites:
            share = share * _open_share(masks[site], self.cells.get(site))
        return share


@dataclass(frozen=True)
class CostModel:
    """The cost of a network at one image size, layer by layer (method section 4).

    Attributes:
        layers: Every convolution of the dense network, and every gate.
        channels: The width of the mask of each gated site.
    """

    layers: tuple[LayerCost, ...]
    channels: Mapping[str, int] = field(default_factory=dict)

    @property
    def dense_macs(self) -> int:
        """Cost of the dense route, for one image: F^O of the paper."""
        return sum(layer.macs for layer in self.layers if not layer.gate)

    @property
    def floor_macs(self) -> int:
        """Cost of the gated route with every mask shut: the smallest possible cost."""
        return sum(layer.macs for layer in self.layers if not layer.sites)

    @property
    def floor_ratio(self) -> float:
        """Smallest possible share of the dense cost."""
        return self.floor_macs / self.dense_macs

    def gaps(self, sites: Iterable[GateSite]) -> list[str]:
        """What the cost model lacks to count gated sites, in words: empty if it lacks nothing."""
        layers = {layer.name for layer in self.layers}
        found = []
        for site in sites:
            unknown = [layer for layer in site.layers if layer not in layers]
            found += [
                f"{site.name} is said to save {layer!r}, a layer that the dense route does not run" for layer in unknown
            ]
            if not site.layers:
                found.append(f"{site.name} names no layers that its gate saves")
            if self.channels.get(site.name) != site.channels:
                found.append(f"cost_model does not count the {site.channels} channels of {site.name}")
        return found

    def gated_macs(self, masks: Mapping[str, Tensor]) -> Tensor:
        """Cost of the gated route, F^R of the paper, for each image.

        Args:
            masks: The mask (N, channels), in {0, 1}, of each gated site by its name.

        Returns:
            MACs (N,), whole numbers in float64; on the CPU if the masks' device has no float64.
        """
        ways = self._ways(masks)
        counts = in_float64(torch.stack([_open_count(masks[site], cells) for site, cells in ways]))
        opened = dict(zip(ways, counts, strict=True))
        total = torch.zeros_like(counts[0])
        for layer in self.layers:
            open_macs = torch.full_like(total, layer.macs)
            for site in layer.sites:
                cells = layer.cells.get(site)
                whole = self.channels[site] if cells is None else sum(cells)
                open_macs = open_macs * opened[site, cells] / whole
            total = total + open_macs
        return total

    def ratio(self, masks: Mapping[str, Tensor]) -> Tensor:
        """F^R / F^O for each image, (N,) in float32, with the gradient of the masks."""
        shares = {(site, cells): _open_share(masks[site], cells) for site, cells in self._ways(masks)}
        total = torch.zeros_like(next(iter(shares.values())))
        for layer in self.layers:
            share = torch.full_like(total, layer.macs / self.dense_macs)
            for site in layer.sites:
                share = share * shares[site, layer.cells.get(site)]
            total = total + share
        return total

    @property
    def position_sites(self) -> set[str]:
        """Names of the sites whose masks are over positions."""
        return {site for layer in self.layers for site in layer.cells}

    def _ways(self, masks: Mapping[str, Tensor]) -> list[tuple[str, Cells | None]]:
        """Each way in which a mask scales layers: by its entries alike, or by the positions that these stand for."""
        by_positions = {(site, cells): None for layer in self.layers for site, cells in layer.cells.items()}
        return [*((site, None) for site in masks), *by_positions]


def _open_count(mask: Tensor, cells: Cells | None) -> Tensor:
    """How many entries of a mask (N, channels) are open, or how many positions of its cells: (N,) float32."""
    mask = mask.float()
    return mask.sum(dim=1) if cells is None else (mask * mask.new_tensor(cells)).sum(dim=1)


def _open_share(mask: Tensor, cells: Cells | None) -> Tensor:
    """The open share of the entries of a mask (N, channels), or of the positions of its cells: (N,) float32."""
    return mask.float().mean(dim=1) if cells is None else _open_count(mask, cells) / sum(cells)


@dataclass(frozen=True)
class Trace:
    """The decisions of the gates for one view, and their cost.

    Attributes:
        masks: The mask (N, channels), exactly 0 or 1, of each gated site by its name, with its gradient.
        cost: The cost model of the network that ran, at the image size of the view.
    """

    masks: Mapping[str, Tensor]
    cost: CostModel

    def ratio(self) -> Tensor:
        """Cost of each image as a share of the dense cost, (N,) float32, with a gradient."""
        return self.cost.ratio(self.masks)

    def macs(self) -> Tensor:
        """Cost of each image in MACs, (N,) float64."""
        return self.cost.gated_macs(self.masks)

    def densities(self) -> dict[str, Tensor]:
        """The open share of each site's mask, a mean over the batch: scalars with a gradient, by the site's name."""
        return {site: mask.float().mean() for site, mask in self.masks.items()}
