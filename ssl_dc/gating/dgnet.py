"""DGNet channel gating (Li et al. 2021; equations 2 and 3 of the paper; method section 4)."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from ssl_dc.folding import folded
from ssl_dc.gating.base import Gate, GatingScheme, PooledRule
from ssl_dc.gating.cost import Trace
from ssl_dc.gating.options import DGNetLossOptions, DGNetOptions
from ssl_dc.gating.sites import GateSite, Granularity

ORDER = 2.0
"""With an ordered start, the first channel's logit begins this much above 0 and the last one's this much below."""


def logistic_noise(logits: Tensor) -> Tensor:
    """Standard logistic noise, log u - log(1 - u) with u uniform in (0, 1), of the shape of ``logits``."""
    eps = torch.finfo(torch.float32).eps
    u = torch.rand(logits.shape, dtype=torch.float32, device=logits.device).clamp(eps, 1 - eps)
    return u.log() - (1 - u).log()


def straight_through(soft: Tensor) -> Tensor:
    """1[soft >= 0.5], exactly 0 or 1, with the gradient of ``soft``."""
    hard = (soft >= 0.5).to(soft.dtype)
    return hard + (soft - soft.detach())


class SampledGate(Gate):
    """A gate of DGNet's: it draws its mask from logits in training, and compares them with the threshold in evaluation.

    Args:
        site: The site that the gate acts on.
        options: Temperature, noise.
    """

    def __init__(self, site: GateSite, options: DGNetLossOptions) -> None:
        super().__init__(site)
        self.temperature = options.temperature
        self.noise = options.noise

    @abstractmethod
    def logits(self, x: Tensor) -> Tensor:
        """Logits (N, channels) in float32; the threshold is not yet subtracted."""

    def forward(self, x: Tensor, threshold: Tensor) -> Tensor:
        """The mask (N, channels): sampled with a straight-through gradient in training, thresholded in evaluation."""
        logits = self.logits(x) - threshold
        if not self.training:
            return (logits >= 0).to(x.dtype)
        noise = self.noise * logistic_noise(logits) if self.noise else 0.0
        soft = torch.sigmoid((logits + noise) / self.temperature)
        return straight_through(soft).to(x.dtype)


class DGNetGate(SampledGate):
    """One gate: logits = W2 . ReLU(BN(W1 . GAP(x))), one for each channel of the hidden activation (equation 2).

    Args:
        site: The channel site that the gate acts on.
        options: Reduction, temperature, noise.
    """

    def __init__(self, site: GateSite, options: DGNetOptions) -> None:
        super().__init__(site, options)
        hidden = max(1, site.in_channels // options.reduction)
        self.squeeze = nn.Conv2d(site.in_channels, hidden, kernel_size=1, bias=False)
        self.norm = nn.BatchNorm2d(hidden)
        self.excite = nn.Conv2d(hidden, site.channels, kernel_size=1, bias=options.start == "ordered")
        if self.excite.bias is not None:
            nn.init.zeros_(self.excite.bias)
            self.excite.bias.data.add_(torch.linspace(ORDER, -ORDER, site.channels))

    @property
    def macs(self) -> int:
        """Cost of the two 1x1 convolutions on one pixel."""
        return self.squeeze.weight.numel() + self.excite.weight.numel()

    def logits(self, x: Tensor) -> Tensor:
        """Logits (N, channels) in float32; the threshold is not yet subtracted."""
        context = x.mean(dim=(2, 3), keepdim=True)
        logits: Tensor = self.excite(torch.relu(self.norm(self.squeeze(context))))
        return logits.flatten(1).float()

    def pooled_rule(self, threshold: Tensor) -> PooledRule:
        """Equation 2 with its batch norm folded, and the threshold."""
        weight, bias = folded(self.squeeze.weight, None, self.norm)
        start = -threshold if self.excite.bias is None else self.excite.bias.detach() - threshold
        return PooledRule(weight.flatten(1), bias, self.excite.weight.detach().flatten(1), start)


class DGNet(GatingScheme):
    """The gating scheme ``dgnet``."""

    granularity = Granularity.CHANNEL

    def __init__(self, options: DGNetOptions) -> None:
        self.options = options

    def gate(self, site: GateSite) -> DGNetGate:
        """A gate for a channel site."""
        return DGNetGate(site, self.options)

    def losses(self, trace: Trace, budget: float, progress: float) -> dict[str, Tensor]:
        """The budget penalty (equation 3), the bound term that the paper leaves out, around sqrt(t_d), and diversity."""
        return {
            "budget": budget_penalty(self.options, trace, budget),
            "bound": bound_term(self.options, trace.densities().values(), math.sqrt(budget), progress),
            **diversity_terms(self.options, trace.masks.values()),
        }


def budget_penalty(options: DGNetLossOptions, trace: Trace, budget: float) -> Tensor:
    """The weighted square of how far the mean cost of a batch is from the budget (equation 3)."""
    return options.penalty * (trace.ratio().mean() - budget).square()


def bound_term(options: DGNetLossOptions, densities: Iterable[Tensor], target: float, progress: float) -> Tensor:
    """The weighted :func:`bound`, which is relaxed as the training goes on.

    Args:
        options: Weight and decay.
        densities: Open share of each block's mask.
        target: d*, in (0, 1].
        progress: Share of the training that is done, in [0, 1].
    """
    return options.bound * bound(torch.stack(list(densities)), target, math.exp(-options.bound_decay * progress))


def diversity_terms(options: DGNetOptions, masks: Iterable[Tensor]) -> dict[str, Tensor]:
    """The weighted :func:`unevenness` of the channels of each site, a mean over the sites; no term at weight 0."""
    if not options.diversity:
        return {}
    return {"diversity": options.diversity * torch.stack([unevenness(mask) for mask in masks]).mean()}


def unevenness(mask: Tensor) -> Tensor:
    """How differently often the entries of a mask are open: the variance, over them, of the share of images that open each.

    It is 0 if every entry is open for as many images. A site that opens the share d of its entries, the same ones for every
    image, has d (1 - d), the most there is. (The paper proposes, without a formula, that the use of channels be diverse.)

    Args:
        mask: (N, channels) of the global batch, 0 or 1, with its gradient.
    """
    return mask.float().mean(dim=0).var(correction=0)


def bound(densities: Tensor, target: float, p: float) -> Tensor:
    """DGNet's bound: it keeps the open share of every block inside an interval that widens as p goes from 1 to 0.

    The mean over blocks of relu(p d* - d)^2 + relu(d - (1 - p + p d*))^2.

    Args:
        densities: Open share d of each block's mask, mean over the batch, (blocks,).
        target: d*, in (0, 1].
        p: How tight the interval is, from 1 (d = d*) to 0 (any d).
    """
    below = torch.relu(p * target - densities)
    above = torch.relu(densities - (1 - p + p * target))
    return (below.square() + above.square()).mean()
