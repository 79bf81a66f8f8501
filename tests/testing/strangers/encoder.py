"""Encoders: one backbone for both routes, and faulty ones."""

from __future__ import annotations

from ssl_dc import Encoder, Route


class Plain(Encoder):
    def __init__(self, options, make_backbone, gating):
        super().__init__()
        self.only = make_backbone(gating.make_gate)

    def backbone(self, route):
        return self.only


class AlwaysGated(Plain):
    def forward(self, images, route):
        return super().forward(images, Route.GATED)


class NotRegistered(Plain):
    def __init__(self, options, make_backbone, gating):
        super().__init__(options, lambda _gates: None, gating)
        self.hidden = (make_backbone(gating.make_gate),)

    def backbone(self, route):
        return self.hidden[0]


class WideFeatures(Plain):
    @property
    def feature_dim(self):
        return 2 * super().feature_dim


class CostOfTheOther(Plain):
    def cost_model(self, image_size):
        return super().cost_model(2 * image_size)
