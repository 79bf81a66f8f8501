"""Gating schemes: linear gates, a top-k of channels, and faulty ones."""

from __future__ import annotations

import torch
from torch import nn

from ssl_dc import Gate, GatingScheme, PooledRule
from ssl_dc.gating.sites import Granularity


class ThresholdedGate(Gate):
    """Opens where a linear layer on the pooled input reaches the threshold."""

    def __init__(self, site):
        super().__init__(site)
        self.layer = nn.Linear(site.in_channels, site.channels)

    @property
    def macs(self):
        return self.layer.weight.numel()

    def logits(self, x, threshold):
        return self.layer(x.mean(dim=(2, 3))).float() - threshold

    def forward(self, x, threshold):
        soft = torch.sigmoid(self.logits(x, threshold))
        hard = (soft >= 0.5).float()
        return (hard + (soft - soft.detach()) if self.training else hard).to(x.dtype)


class Thresholded(GatingScheme):
    granularity = Granularity.CHANNEL
    gate_class: type[Gate] = ThresholdedGate

    def __init__(self, options):
        self.options = options

    def gate(self, site):
        return self.gate_class(site)

    def losses(self, trace, budget, progress):
        return {"budget": (trace.ratio().mean() - budget).square()}


class TopKGate(ThresholdedGate):
    """Opens the third of the channels with the largest saliency, whatever the threshold."""

    heeds_threshold = False

    def forward(self, x, threshold):
        saliency = self.layer(x.mean(dim=(2, 3))).float().sigmoid()
        chosen = saliency.topk(max(1, saliency.shape[1] // 3), dim=1).indices
        hard = torch.zeros_like(saliency).scatter(1, chosen, 1.0)
        return (hard + (saliency - saliency.detach()) if self.training else hard.detach()).to(x.dtype)


class TopK(Thresholded):
    gate_class = TopKGate


class NeitherLossNorThreshold(TopK):
    def losses(self, trace, budget, progress):
        return {}


class SoftGate(ThresholdedGate):
    def forward(self, x, threshold):
        return torch.sigmoid(self.logits(x, threshold)).to(x.dtype) if self.training else super().forward(x, threshold)


class SoftMasks(Thresholded):
    gate_class = SoftGate


class FirstThresholdsGate(ThresholdedGate):
    def logits(self, x, threshold):
        return super().logits(x, threshold.reshape(-1, threshold.shape[-1])[0])


class FirstThresholdsForAll(Thresholded):
    gate_class = FirstThresholdsGate


class OneMaskGate(ThresholdedGate):
    def forward(self, x, threshold):
        return super().forward(x, threshold)[:, :1]


class OneMaskForAllChannels(Thresholded):
    gate_class = OneMaskGate


class Float32Gate(ThresholdedGate):
    def forward(self, x, threshold):
        return super().forward(x, threshold).float()


class MasksInFloat32(Thresholded):
    gate_class = Float32Gate


class SamplingGate(ThresholdedGate):
    def logits(self, x, threshold):
        logits = super().logits(x, threshold)
        return logits + torch.randn_like(logits)


class SampledInEvaluation(Thresholded):
    gate_class = SamplingGate


class BatchGate(ThresholdedGate):
    def logits(self, x, threshold):
        logits = super().logits(x, threshold)
        return logits - logits.mean(dim=0)


class BatchInEvaluation(Thresholded):
    gate_class = BatchGate


class HardGate(ThresholdedGate):
    def forward(self, x, threshold):
        return super().forward(x, threshold).detach()


class HardMasks(Thresholded):
    gate_class = HardGate


class HalfGate(ThresholdedGate):
    @property
    def macs(self):
        return super().macs // 2


class HalfTheCost(Thresholded):
    gate_class = HalfGate


class RuledGate(ThresholdedGate):
    """Says its rule: one layer, as two of which the first is +1 and -1 times its input, rectified."""

    def pooled_rule(self, threshold):
        both = torch.cat([torch.eye(self.layer.in_features), -torch.eye(self.layer.in_features)])
        weight = torch.cat([self.layer.weight, -self.layer.weight], dim=1).detach()
        return PooledRule(both, torch.zeros(len(both)), weight, self.layer.bias.detach() - threshold)


class Ruled(Thresholded):
    gate_class = RuledGate


class ForgetfulGate(RuledGate):
    def pooled_rule(self, threshold):
        return super().pooled_rule(threshold)._replace(bias=self.layer.bias.detach())


class RuleWithoutThreshold(Thresholded):
    gate_class = ForgetfulGate


class UpsideDownGate(ThresholdedGate):
    def logits(self, x, threshold):
        return super().logits(x, threshold) + 2 * threshold


class UpsideDownThreshold(Thresholded):
    gate_class = UpsideDownGate


class OpensAboveBudget(Thresholded):
    def losses(self, trace, budget, progress):
        return {"budget": budget - trace.ratio().mean()}


class DetachedLoss(Thresholded):
    def losses(self, trace, budget, progress):
        return {name: loss.detach() for name, loss in super().losses(trace, budget, progress).items()}


class SaysItHasNoGates(Thresholded):
    pass


class SameGateTwice(Thresholded):
    def __init__(self, options):
        super().__init__(options)
        self.made = {}

    def gate(self, site):
        return self.made.setdefault((site.in_channels, site.channels), super().gate(site))


class DeafGate(ThresholdedGate):
    def logits(self, x, threshold):
        return super().logits(x, torch.zeros_like(threshold))


class IgnoresTheThreshold(Thresholded):
    gate_class = DeafGate


class ShutGate(ThresholdedGate):
    def forward(self, x, threshold):
        return 0 * super().forward(x, threshold)


class AlwaysShut(Thresholded):
    gate_class = ShutGate


class WideGate(ThresholdedGate):
    def forward(self, x, threshold):
        mask = super().forward(x, threshold)
        return torch.cat([mask, mask[:, :1]], dim=1)


class OneEntryTooMany(Thresholded):
    gate_class = WideGate
