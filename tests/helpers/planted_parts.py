# ruff: noqa: ARG002, RUF012  # parts have the arguments of their kind, and are short
"""A plugin of one file with a part of each kind that training uses, all sound. Tests plant faults by changing lines."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

import ssl_dc
from ssl_dc.backbones.base import GatePoint
from ssl_dc.norms.base import Position

# options


class Options(ssl_dc.PartOptions):
    name: str = "planted"


class GatingOptions(ssl_dc.GatingOptions):
    name: str = "planted"


class DataOptions(ssl_dc.DataOptions):
    name: str = "planted"
    image_size: int = 8


class OptimizerOptions(ssl_dc.OptimizerOptions):
    name: str = "planted"
    lr: float = 0.1


# the network


class Net(ssl_dc.Backbone):
    feature_dim = 8

    def __init__(self, options, norm_factory, gate_factory):
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, stride=2)
        self.norm = norm_factory(6, Position.STEM)
        self.conv1 = nn.Conv2d(6, 8, 3, padding=1)
        site = ssl_dc.GateSite("hidden", ssl_dc.Granularity.CHANNEL, 6, 8, ("conv1", "conv2"))
        self.hidden = GatePoint(site, gate_factory)
        self.conv2 = nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, images, route):
        masks = {}
        x = torch.relu(self.norm(self.stem(images), route))
        hidden = self.hidden(torch.relu(self.conv1(x)), x, route, masks)
        features = self.conv2(hidden).mean(dim=(2, 3))
        return features, masks

    def cost_model(self, image_size):
        return super().cost_model(image_size)


class OneNet(ssl_dc.Encoder):
    def __init__(self, options, make_backbone, gating):
        super().__init__()
        self.net = make_backbone(gating.make_gate)

    def backbone(self, route):
        return self.net

    def forward(self, images, route):
        return super().forward(images, route)


class Norm(ssl_dc.RouteNorm):
    def __init__(self, channels):
        super().__init__()
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x, route):
        return self.norm(x)

    def for_route(self, route):
        return self.norm


class Norms(ssl_dc.NormPolicy):
    def __init__(self, options):
        self.options = options

    def layer(self, channels, position):
        return Norm(channels)


class Linear(ssl_dc.Gate):
    def __init__(self, site):
        super().__init__(site)
        self.layer = nn.Linear(site.in_channels, site.channels)

    @property
    def macs(self):
        return self.layer.weight.numel()

    def forward(self, x, threshold):
        soft = torch.sigmoid(self.layer(x.mean(dim=(2, 3))) - threshold)
        mask = (soft >= 0.5).to(x.dtype)
        return mask + (soft - soft.detach()) if self.training else mask


class Gating(ssl_dc.GatingScheme):
    granularity = ssl_dc.Granularity.CHANNEL

    def __init__(self, options):
        self.options = options

    def gate(self, site):
        return Linear(site)

    def losses(self, trace, budget, progress):
        distance = (trace.ratio().mean() - budget).square()
        return {"budget": distance}


# what is learned from it


class Near(ssl_dc.Objective):
    weights = {"near": 1.0, "spread": 2.0}
    trained_views = None

    def __init__(self, options, feature_dim):
        super().__init__()
        self.head = nn.Linear(feature_dim, 4)
        self.steps = 0

    def bind(self, encoder):
        self.bound = True

    def forward(self, views):
        features = [features.float() for features in views.features]
        z1, z2 = map(self.head, features)
        embeddings = [z1, z2]
        terms = {"near": F.mse_loss(z1, z2), "spread": F.relu(1 - z1.std(dim=0)).mean()}
        return ssl_dc.ObjectiveOutput(terms, embeddings)

    def after_step(self, encoder, progress):
        self.steps += 1


def optimizer(options, groups, lr):
    parameters = [p for group in groups for p in group.parameters]
    return SGD(parameters, lr=lr)


class SGD(torch.optim.SGD):
    def step(self, closure=None):
        return super().step(closure)


class Views(ssl_dc.Views):
    def __init__(self, options, image_size, mean, std):
        self.options = options

    def view(self, image, number):
        pixels = torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1)
        view = pixels.float() / 255
        return view + 0.1 * torch.rand(view.shape)


class Noise(ssl_dc.ImageSet):
    def __init__(self, count):
        self.count = count

    @property
    def labels(self):
        return np.arange(self.count) % 2

    def __len__(self):
        return self.count

    def image(self, index):
        pixels = np.random.default_rng(index).integers(0, 255, (8, 8, 3), dtype=np.uint8)
        return Image.fromarray(pixels)


class Data(ssl_dc.DataSet):
    def open(self):
        train, test = Noise(16), Noise(6)
        return ssl_dc.Splits(train, train, test, ("even", "odd"))


def part(target, options="Options"):
    return [ssl_dc.Part(name="planted", target=f"{__name__}:{target}", options=f"{__name__}:{options}", summary="Planted.")]


@ssl_dc.hookimpl
def ssl_dc_objectives():
    return part("Near")


@ssl_dc.hookimpl
def ssl_dc_gatings():
    return part("Gating", "GatingOptions")


@ssl_dc.hookimpl
def ssl_dc_encoders():
    return part("OneNet")


@ssl_dc.hookimpl
def ssl_dc_backbones():
    return part("Net")


@ssl_dc.hookimpl
def ssl_dc_norms():
    return part("Norms")


@ssl_dc.hookimpl
def ssl_dc_data():
    return part("Data", "DataOptions")


@ssl_dc.hookimpl
def ssl_dc_views():
    return part("Views")


@ssl_dc.hookimpl
def ssl_dc_optimizers():
    return part("optimizer", "OptimizerOptions")
