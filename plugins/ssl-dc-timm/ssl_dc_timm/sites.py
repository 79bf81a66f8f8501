"""Finds the gate sites of a traced network.

A channel site is a value inside a block that has two properties:

- Everything from some layers to the value is channelwise, so that a shut channel needs no row of those layers' weights.
- Everything from the value to some layers maps a channel of zeros to a channel of zeros, so that a shut channel needs no
  column of those layers' weights. Where such a channel is multiplied with another value, as in squeeze-and-excitation,
  the row of the layer that makes the other value is not needed either.

In front of the layers that combine all channels of a group, an entry of the mask may be a whole group: a group of a grouped
convolution, or an attention head.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from os.path import commonpath

from torch import fx

import ssl_dc
from ssl_dc_timm.branches import Branch, can_be_shut, residual_branches
from ssl_dc_timm.channels import Candidate, ChannelSearch
from ssl_dc_timm.layer_graph import LayerGraph, channel_axis
from ssl_dc_timm.trace import TracedNetwork


@dataclass(frozen=True)
class FoundSite:
    """A gate site of a traced network.

    Attributes:
        name: What it is called: a layer and what an entry of the mask is, such as ``layer1.0.conv1.channels``.
        value: The value that is gated.
        reader: The one node that reads the gated value; None if all do.
        decides_on: The value that the gate decides on.
        input_axis: The axis of that value that has its channels.
        granularity: What one entry of the mask switches.
        entries: Width of the mask.
        axis: The axis of the value that has the channels.
        layers: The nodes of the layers whose cost the mask scales, in the order in which they run.
    """

    name: str
    value: fx.Node
    reader: fx.Node | None
    decides_on: fx.Node
    input_axis: int
    granularity: ssl_dc.Granularity
    entries: int
    axis: int
    layers: tuple[fx.Node, ...]


class SiteFinder:
    """Finds the sites of one network.

    Args:
        network: The network.

    Attributes:
        branches: Its residual branches that have layers, in order.
    """

    def __init__(self, network: TracedNetwork) -> None:
        self.network, self.graph = network, LayerGraph(network)
        self.branches = list(residual_branches(self.graph))

    def sites(self) -> list[FoundSite]:
        """The sites, in the order of the values that they gate."""
        shut = (branch for branch in self.branches if can_be_shut(self.graph, branch))
        found = [*map(self._channel_site, ChannelSearch(self.graph).chosen()), *map(self._branch_site, shut)]
        found.sort(key=lambda site: (self.network.index[site.value], site.reader is not None))
        names = Counter(site.name for site in found)
        return [
            replace(site, name=f"{site.layers[0].target}.{site.name}") if names[site.name] > 1 else site for site in found
        ]

    def _channel_site(self, candidate: Candidate) -> FoundSite:
        channels = self.network.shape(candidate.value)[candidate.axis]
        products = any(map(self.graph.is_products, candidate.whole))
        kind = "heads" if products else ("channels" if candidate.entries == channels else "groups")
        layers = self.graph.in_order(candidate.layers)
        return FoundSite(
            name=f"{layers[0].target}.{kind}",
            value=candidate.value,
            reader=None,
            decides_on=(start := self.graph.cut_before(layers[0])),
            input_axis=channel_axis(self.network, start),
            granularity=ssl_dc.Granularity.CHANNEL,
            entries=candidate.entries,
            axis=candidate.axis,
            layers=layers,
        )

    def _branch_site(self, branch: Branch) -> FoundSite:
        layers = self.graph.in_order(branch.inside & self.graph.counted)
        around = commonpath(str(layer.target).replace(".", "/") for layer in layers).replace("/", ".")
        return FoundSite(
            name=f"{around or layers[0].target}.branch",
            value=branch.value,
            reader=branch.end,
            decides_on=branch.start,
            input_axis=channel_axis(self.network, branch.start),
            granularity=ssl_dc.Granularity.BRANCH,
            entries=1,
            axis=1,
            layers=layers,
        )
