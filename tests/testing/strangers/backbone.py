"""Backbones: a block with a gate site, one without, and faulty ones."""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import nn

from ssl_dc import Backbone, GateSite, Route
from ssl_dc.backbones.base import GatePoint
from ssl_dc.gating.sites import Granularity
from ssl_dc.norms.base import Position


class Blocks(Backbone):
    saved = ("conv1", "conv2")
    point_class = GatePoint

    def __init__(self, options, norm_factory, gate_factory):
        super().__init__()
        self.options = options
        self.stem = nn.Conv2d(3, 6, 3, stride=2)
        self.norm = norm_factory(6, Position.STEM)
        self.conv1 = nn.Conv2d(6, 8, 3, padding=1, bias=False)
        self.norm1 = norm_factory(8, Position.BLOCK)
        self.hidden = self.point_class(GateSite("hidden", Granularity.CHANNEL, 6, 8, self.saved), gate_factory)
        self.conv2 = nn.Conv2d(8, 10, 3, padding=1, bias=False)
        self.norm2 = norm_factory(10, Position.BLOCK)
        self.shortcut = nn.Conv2d(6, 10, 1, bias=False)

    @property
    def feature_dim(self):
        return 10

    def route_of_norm1(self, route):
        return route

    def forward(self, images, route):
        masks = {}
        x = torch.relu(self.norm(self.stem(images), route))
        hidden = torch.relu(self.norm1(self.conv1(x), self.route_of_norm1(route)))
        hidden = self.hidden(hidden, x, route, masks)
        x = torch.relu(self.norm2(self.conv2(hidden), route) + self.shortcut(x))
        return x.mean(dim=(2, 3)), masks


class WithoutSites(Backbone):
    def __init__(self, options, norm_factory, gate_factory):
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, stride=2)
        self.norm = norm_factory(6, Position.STEM)
        self.last = nn.Linear(6, 8)

    @property
    def feature_dim(self):
        return 8

    def forward(self, images, route):
        return self.last(torch.relu(self.norm(self.stem(images), route)).mean(dim=(2, 3))), {}


class OneRoute(WithoutSites):
    """Without sites no image takes the gated route; a copy is tried out when it is built."""

    def __init__(self, options, norm_factory, gate_factory):
        super().__init__(options, norm_factory, gate_factory)
        copy.deepcopy(self)(torch.zeros(1, 3, 8, 8), Route.DENSE)

    def forward(self, images, route):
        return super().forward(images, Route.DENSE)


class WrongWidth(Blocks):
    @property
    def feature_dim(self):
        return 12


class DetachedPoint(GatePoint):
    def forward(self, activation, block_input, route, masks):
        gated = super().forward(activation, block_input, route, masks)
        return activation * masks[self.site.name].detach()[:, :, None, None] if masks else gated


class DetachedMask(Blocks):
    point_class = DetachedPoint


class OwnBatchNorm(Blocks):
    def __init__(self, options, norm_factory, gate_factory):
        super().__init__(options, norm_factory, gate_factory)
        self.stem = nn.Sequential(self.stem, nn.BatchNorm2d(6))


class AlwaysTheDenseNorm(Blocks):
    def route_of_norm1(self, route):
        return Route.DENSE


class SavesTheShortcut(Blocks):
    saved = ("conv1", "conv2", "shortcut")


class MeanPoint(GatePoint):
    def forward(self, activation, block_input, route, masks):
        gated = super().forward(activation, block_input, route, masks)
        return activation * masks[self.site.name].mean(dim=1)[:, None, None, None] if masks else gated


class MeanMask(Blocks):
    point_class = MeanPoint


class UncountedConvolution(Blocks):
    def __init__(self, options, norm_factory, gate_factory):
        super().__init__(options, norm_factory, gate_factory)
        self.kernel = nn.Parameter(torch.randn(3, 3, 3, 3))

    def forward(self, images, route):
        return super().forward(F.conv2d(images, self.kernel, padding=1), route)


class UnknownLayer(Blocks):
    def __init__(self, options, norm_factory, gate_factory):
        super().__init__(options, norm_factory, gate_factory)
        self.unused = nn.Conv2d(3, 3, 3).requires_grad_(False)

    saved = ("conv1", "conv2", "unused")


class HiddenAndPositions(nn.Module):
    """Two sites that mask one activation, one after the other."""

    def __init__(self, site, gate_factory):
        super().__init__()
        self.channels = GatePoint(site, gate_factory)
        positions = GateSite("positions", Granularity.POSITION, site.in_channels, 1, site.layers)
        self.positions = GatePoint(positions, gate_factory)

    def forward(self, activation, block_input, route, masks):
        activation = self.channels(activation, block_input, route, masks)
        return self.positions(activation, block_input, route, masks)


class MasksOnlyTheHidden(Blocks):
    """Shut positions of the branch get what the convolution makes of their neighbours."""

    point_class = HiddenAndPositions


class BatchStatistics(Blocks):
    def forward(self, images, route):
        return super().forward(images - images.mean(dim=0), route)
