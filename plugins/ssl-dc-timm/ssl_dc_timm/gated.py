"""Puts gates and the norms of a policy into a traced network, and lets the route through to them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from torch import fx

import ssl_dc
from ssl_dc_timm.norms import is_norm, route_norm
from ssl_dc_timm.sites import FoundSite, SiteFinder
from ssl_dc_timm.trace import TracedNetwork


def gated(
    network: TracedNetwork,
    finder: SiteFinder,
    sites: Sequence[FoundSite],
    prefix: str,
    norm_factory: ssl_dc.NormFactory,
    gate_factory: ssl_dc.GateFactory,
) -> fx.GraphModule:
    """The network with gates, as a module that takes images, the route, and the dict that masks are added to.

    Args:
        network: The network; it is changed in place.
        finder: What found the sites, which knows the branches.
        sites: The sites, at least one.
        prefix: The name of the network in the backbone, with a dot.
        norm_factory: Gives the norms, which begin as timm's.
        gate_factory: Gives the gates.
    """
    graph = network.graph.graph
    with graph.inserting_after(network.images):
        route = graph.placeholder("route")
    with graph.inserting_after(route):
        masks = graph.placeholder("masks")
    _exchange_norms(network, finder, sites, norm_factory, route)
    inputs: dict[fx.Node, fx.Node] = {}
    for number, site in enumerate(sites):
        if site.decides_on not in inputs:
            inputs[site.decides_on] = _as_image(network, site)
        name = f"points.{number}"
        network.graph.add_submodule(name, _point(network, site, prefix, gate_factory))
        with graph.inserting_before(site.reader) if site.reader is not None else graph.inserting_after(site.value):
            point = graph.call_module(name, (site.value, inputs[site.decides_on], route, masks))
        for user in [site.reader] if site.reader is not None else [user for user in site.value.users if user is not point]:
            user.replace_input_with(site.value, point)
    graph.lint()
    network.graph.recompile()
    return network.graph


def _point(network: TracedNetwork, site: FoundSite, prefix: str, gate_factory: ssl_dc.GateFactory) -> ssl_dc.GatePoint:
    width = network.shape(site.decides_on)[site.input_axis]
    layers = tuple(f"{prefix}{layer.target}" for layer in site.layers)
    declared = ssl_dc.GateSite(site.name, site.granularity, width, site.entries, layers, site.axis)
    return ssl_dc.GatePoint(declared, gate_factory)


def _as_image(network: TracedNetwork, site: FoundSite) -> fx.Node:
    """What a gate decides on in the layout that it reads, (N, C, H, W): tokens (N, T, C) become (N, C, T, 1)."""
    graph, value = network.graph.graph, site.decides_on
    shape = network.shape(value)
    if len(shape) == 4 and site.input_axis == 1:
        return value
    order = (0, 2, 1) if len(shape) == 3 else (0, 3, 1, 2)
    with graph.inserting_after(value):
        image = graph.call_method("permute", (value, order))
    if len(shape) == 3:
        with graph.inserting_after(image):
            image = graph.call_method("unsqueeze", (image, -1))
    return cast(fx.Node, image)


def _exchange_norms(
    network: TracedNetwork,
    finder: SiteFinder,
    sites: Sequence[FoundSite],
    norm_factory: ssl_dc.NormFactory,
    route: fx.Node,
) -> None:
    """Put the policy's norms in the place of timm's, and give them the route."""
    made: set[str] = set()
    for node in network.nodes:
        norm = network.module(node)
        if norm is None or not is_norm(norm):
            continue
        name = str(node.target)
        if name not in made:
            made.add(name)
            network.graph.add_submodule(name, route_norm(norm, norm_factory, _position(network, finder, sites, node)))
        node.args = (node.all_input_nodes[0], route)
        node.kwargs = {}


def _position(network: TracedNetwork, finder: SiteFinder, sites: Sequence[FoundSite], norm: fx.Node) -> ssl_dc.Position:
    """Where a norm is: before all blocks, on the shortcut of one, or anywhere else."""
    if network.index[norm] <= min(network.index[site.decides_on] for site in sites):
        return ssl_dc.Position.STEM
    shortcut = any(norm in branch.shortcut for branch in finder.branches)
    return ssl_dc.Position.DOWNSAMPLE if shortcut else ssl_dc.Position.BLOCK
