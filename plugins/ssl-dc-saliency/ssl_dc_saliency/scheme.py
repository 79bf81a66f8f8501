"""Saliency top-k gating, after Feature Boosting and Suppression (FBS, Gao et al. 2019)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import ssl_dc
from ssl_dc_saliency.options import SaliencyOptions

LOGISTIC_STD = math.pi / math.sqrt(3)
"""Standard deviation of the standard logistic distribution, whose quantiles the scores are."""


def positions(saliency: Tensor) -> Tensor:
    """Position of each channel among those of its image, by saliency (N, C): (rank + 1/2) / C, 0 for the most salient."""
    order = saliency.argsort(dim=1, descending=True, stable=True)
    return (order.argsort(dim=1) + 0.5) / saliency.shape[1]


class SaliencyGate(ssl_dc.Gate):
    """One gate: predicts the saliency of each channel, and opens the k most salient.

    The saliencies are a linear map of the mean absolute value of each input channel (the paper's predictor, without its
    ReLU), standardised over the site's channels. Of C channels, k = round(C * share) are open for every image, with
    share = sigmoid(lean - threshold). ``lean`` is learned. The budget control sets the threshold.

    Args:
        site: The channel site that the gate acts on.
        options: Share, temperature.
    """

    def __init__(self, site: ssl_dc.GateSite, options: SaliencyOptions) -> None:
        super().__init__(site)
        self.temperature = options.temperature
        self.predictor = nn.Linear(site.in_channels, site.channels)
        nn.init.kaiming_normal_(self.predictor.weight)
        nn.init.zeros_(self.predictor.bias)
        self.lean = nn.Parameter(torch.tensor(math.log(options.share / (1 - options.share))))

    @property
    def macs(self) -> int:
        """Cost of the linear map."""
        return self.predictor.weight.numel()

    def saliency(self, x: Tensor) -> Tensor:
        """Saliencies (N, channels) of the block's input x (N, in_channels, H, W): mean 0 and variance 1 in each image."""
        context = x.abs().mean(dim=(2, 3), dtype=self.lean.dtype)
        return F.layer_norm(self.predictor(context), (self.predictor.out_features,))

    def forward(self, x: Tensor, threshold: Tensor) -> Tensor:
        """The mask (N, channels). Training and evaluation have the same mask; in training it has a gradient.

        The value of a channel's score is the quantile of the logistic distribution at the channel's position. The gradient
        of the score is that of its saliency, on the same scale. The mask has the straight-through gradient of
        sigmoid((score + lean - threshold) / temperature).
        """
        with torch.autocast(x.device.type, enabled=False):
            saliency = self.saliency(x)
            position = positions(saliency.detach())
            # an image has one k for all its channels, whose thresholds differ only slightly
            margin = self.lean - threshold.mean(dim=-1, keepdim=True)
            mask = (position <= torch.sigmoid(margin)).to(x.dtype)
            if not self.training:
                return mask
            score = torch.logit(1 - position) + LOGISTIC_STD * (saliency - saliency.detach())
            soft = torch.sigmoid((score + margin) / self.temperature)
            return mask + (soft - soft.detach()).to(x.dtype)


class Saliency(ssl_dc.GatingScheme):
    """The gating scheme ``saliency``."""

    granularity = ssl_dc.Granularity.CHANNEL

    def __init__(self, options: SaliencyOptions) -> None:
        self.options = options

    def gate(self, site: ssl_dc.GateSite) -> SaliencyGate:
        """A gate for a channel site."""
        return SaliencyGate(site, self.options)

    def losses(self, trace: ssl_dc.Trace, budget: float, progress: float) -> dict[str, Tensor]:  # noqa: ARG002
        """The squared distance of the mean share of the dense cost to the budget."""
        return {"budget": self.options.penalty * (trace.ratio().mean() - budget).square()}
