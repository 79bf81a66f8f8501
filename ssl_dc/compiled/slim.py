"""Channels and branches that are seldom open, cut out for good."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from ssl_dc.compiled.arena import shapes_of
from ssl_dc.compiled.plan import Conv, Decide, Mask, Plan, Step
from ssl_dc.errors import RunError


def slim(plan: Plan, open_shares: Mapping[str, Tensor], least: float, *, multiple: int = 1) -> Plan:
    """The plan with fixed masks, and without what they shut: an ordinary network.

    Args:
        plan: A fused plan of the gated route.
        open_shares: For each site the share of images for which each entry of its mask is open, (channels,), in [0, 1].
        least: Entries that are open for a smaller share are cut.
        multiple: How many channels stay at a site is rounded up to a multiple of this (at least one multiple, since a
            convolution without outputs is none), those first that are open most often. Runtimes compute whole vectors of
            channels, often 16: those that fill one up cost no time. But what the gates seldom open, they seldom miss.

    Raises:
        RunError: If a mask acts where it cannot be cut.
    """
    kept = {site.name: _kept(open_shares[site.name], least, multiple) for site in plan.sites}
    steps = [_cut(step, kept) for step in plan.steps if not isinstance(step, Decide) and _stays(step, open_shares, least)]
    for step in steps:
        if isinstance(step, Mask):
            raise RunError(f"{step.output}: a mask that no convolution takes over cannot be cut")
    return replace(plan, steps=tuple(steps))


def macs_of(plan: Plan, image_size: int) -> int:
    """MACs of a plan's convolutions for one image, all channels computed."""
    shapes = shapes_of(plan, (image_size, image_size))
    convolutions = (step for step in plan.steps if isinstance(step, Conv))
    return sum(step.weight.numel() * shapes[step.output][2] * shapes[step.output][3] for step in convolutions)


def parameters_of(plan: Plan) -> int:
    """Weights and biases of a plan's convolutions."""
    return sum(step.weight.numel() + step.bias.numel() for step in plan.steps if isinstance(step, Conv))


def _kept(shares: Tensor, least: float, multiple: int) -> Tensor:
    """Indices of the channels that stay, ascending."""
    wanted = max(1, int((shares >= least).sum()))
    number = min(len(shares), -(-wanted // multiple) * multiple)
    return shares.argsort(descending=True, stable=True)[:number].sort().values


def _stays(step: Step, open_shares: Mapping[str, Tensor], least: float) -> bool:
    if step.when is not None:
        return bool(open_shares[step.when][0] >= least)
    return step.unless is None or bool(open_shares[step.unless][0] < least)


def _cut(step: Step, kept: Mapping[str, Tensor]) -> Step:
    step = replace(step, when=None, unless=None)
    if not isinstance(step, Conv):
        return step
    weight, bias = step.weight, step.bias
    if step.out_site is not None:
        weight, bias = weight[kept[step.out_site]], bias[kept[step.out_site]]
    if step.in_site is not None:
        weight = weight[:, kept[step.in_site]]
    return replace(step, weight=torch.clone(weight), bias=torch.clone(bias), in_site=None, out_site=None)
