"""Makes a gated network static: channels and branches that its gates seldom open are removed, and the gates with them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace

import torch
from torch import Tensor

from ssl_dc.compiled.eager import groups_with, picked, weight_and_bias
from ssl_dc.compiled.plan import Plan
from ssl_dc.compiled.steps.base import Step
from ssl_dc.compiled.steps.data_movement import Choice
from ssl_dc.compiled.steps.gates import Decide, Mask
from ssl_dc.compiled.steps.layers import Conv, Linear
from ssl_dc.errors import RunError
from ssl_dc.gating.sites import Granularity


def make_static(plan: Plan, open_shares: Mapping[str, Tensor], min_open_share: float, *, multiple: int = 1) -> Plan:
    """The plan with fixed masks and without the channels and branches that these shut: an ordinary network.

    Args:
        plan: A fused plan of the gated route.
        open_shares: For each site the share of images for which each entry of its mask is open, (channels,), in [0, 1].
        min_open_share: Entries that are open for a smaller share of the images are removed, in [0, 1].
        multiple: The number of channels that stay at a site is rounded up to a multiple of this; those that are open most
            often come first. At least one multiple stays, since a convolution needs an output. Runtimes compute whole
            vectors of channels, often 16, so channels that fill up a vector cost no time. They seldom help either: the
            gates seldom open them.

    Raises:
        ValueError: If ``min_open_share`` is not in [0, 1].
        RunError: If a mask is over positions, or acts at a place where no layer can take it over.
    """
    if not (math.isfinite(min_open_share) and 0 <= min_open_share <= 1):
        raise ValueError(f"min_open_share must be in [0, 1], not {min_open_share}")
    for site in plan.sites:
        if site.granularity is Granularity.POSITION:
            raise RunError(
                f"{site.name}: a mask of positions removes no channel and no branch, so it cannot be made static"
            )
    spans = _spans(plan)
    kept = {
        site.name: _kept(open_shares[site.name], min_open_share, _entries(multiple, spans.get(site.name, ())))
        for site in plan.sites
    }
    steps = [
        static
        for step in plan.steps
        if not isinstance(step, Decide) and _stays(step, open_shares, min_open_share)
        for static in _without_shut_channels(step, kept)
    ]
    for step in steps:
        if isinstance(step, Mask):
            raise RunError(f"{step.output}: no layer takes this mask over, so it cannot be made static")
    return replace(plan, steps=tuple(steps))


def _spans(plan: Plan) -> dict[str, set[int]]:
    """For each site how many channels an entry of its mask stands for, in each layer that the mask acts on."""
    spans: dict[str, set[int]] = {}
    for step in plan.steps:
        if isinstance(step, (Conv, Linear)):
            for site, span in ((step.in_site, step.in_span), (step.out_site, step.out_span)):
                if site is not None:
                    spans.setdefault(site, set()).add(span)
    return spans


def _entries(multiple: int, spans: Iterable[int]) -> int:
    """The smallest number of entries whose channels are a multiple of ``multiple`` at each of these spans."""
    return math.lcm(*(multiple // math.gcd(multiple, span) for span in spans))


def _kept(shares: Tensor, min_open_share: float, multiple: int) -> Tensor:
    """Indices of the entries that stay, ascending."""
    wanted = max(1, int((shares >= min_open_share).sum()))
    number = min(len(shares), -(-wanted // multiple) * multiple)
    return shares.argsort(descending=True, stable=True)[:number].sort().values


def _stays(step: Step, open_shares: Mapping[str, Tensor], min_open_share: float) -> bool:
    if step.when is not None:
        return bool(open_shares[step.when][0] >= min_open_share)
    return step.unless is None or bool(open_shares[step.unless][0] < min_open_share)


def _without_shut_channels(step: Step, kept: Mapping[str, Tensor]) -> list[Step]:
    step = replace(step, when=None, unless=None)
    if not isinstance(step, (Conv, Linear)):
        return [step]
    weight, bias = weight_and_bias(step, kept)
    before: list[Step] = []
    if isinstance(step, Conv):
        if step.groups > 1 and step.out_site is not None and step.in_site is None:
            inputs = torch.arange(step.groups * step.weight.shape[1])
            channels = picked(inputs, 0, kept[step.out_site], step.in_span)
            chosen = Choice(output=f"{step.output}.inputs", input=step.input, channels=channels)
            before.append(chosen)
            step = replace(step, input=chosen.output)
        step = replace(step, groups=groups_with(step, len(weight)))
    return [*before, replace(step, weight=torch.clone(weight), bias=torch.clone(bias), in_site=None, out_site=None)]
