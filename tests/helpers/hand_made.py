# ruff: noqa: ARG002  # the parts have the arguments of their interfaces
"""A training composed by hand, from torch objects that no plugin brings."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from PIL.Image import Image
from torch import Tensor, nn
from torch.optim import SGD, Optimizer

from ssl_dc.backbones.base import Backbone, GatePoint, Masks
from ssl_dc.config import BudgetConfig, TrainingConfig
from ssl_dc.data.digits import ArrayImages
from ssl_dc.encoders.base import Encoder
from ssl_dc.gating.base import Gate, GateFactory, GatingScheme, no_gates
from ssl_dc.gating.cost import Trace
from ssl_dc.gating.none import NoGating
from ssl_dc.gating.options import NoGatingOptions
from ssl_dc.gating.sites import GateSite, Granularity
from ssl_dc.objectives.base import EncodedViews, Objective, ObjectiveOutput
from ssl_dc.optimizers.base import ParameterGroup
from ssl_dc.routes import Route
from ssl_dc.training.trainer import Trainer
from ssl_dc.views.base import Views


class Mean(Backbone):
    """One linear map of the mean colour, without batch norm: the loss of a batch is the mean of those of its parts."""

    feature_dim = 2

    def __init__(self, gate_factory: GateFactory = no_gates) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 2)
        self.point = GatePoint(GateSite("linear.out", Granularity.CHANNEL, 3, 2, ("linear",)), gate_factory)
        with torch.no_grad():
            self.linear.weight.copy_(torch.tensor([[0.5, -0.25, 1.0], [0.25, 0.75, -0.5]]))
            self.linear.bias.zero_()

    def forward(self, images: Tensor, route: Route) -> tuple[Tensor, Masks]:
        masks: Masks = {}
        mean = images.mean(dim=(2, 3))
        return self.point(self.linear(mean)[:, :, None, None], images, route, masks).flatten(1), masks


class One(Encoder):
    """A single backbone."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.only = backbone

    def backbone(self, route: Route) -> Backbone:
        return self.only


class Distance(Objective):
    """Squared distance of each view's features to those of the next, and optionally not a number from some step on."""

    views = None

    def __init__(self, broken_from: int | None = None) -> None:
        super().__init__()
        self.broken_from = broken_from
        self.steps = 0
        self.progress: list[float] = []
        self.bound_to: tuple[Encoder, ...] = ()  # a tuple, so that it is not part of the module
        self.routes: list[tuple[Route, ...]] = []

    @property
    def weights(self) -> Mapping[str, float]:
        return {"distance": 3.0}

    def bind(self, encoder: Encoder) -> None:
        self.bound_to = (encoder,)

    def forward(self, views: EncodedViews) -> ObjectiveOutput:
        self.routes.append(tuple(views.routes))
        term = torch.stack([(one - other).square().mean() for one, other in pairwise(views.features)]).sum()
        if self.broken_from is not None and self.steps >= self.broken_from:
            term = term * math.nan
        return ObjectiveOutput({"distance": term}, list(views.features))

    def after_step(self, encoder: Encoder, progress: float) -> None:
        self.steps += 1
        self.progress.append(progress)


class Random(GatingScheme):
    """Opens each channel where a learned number for it is above 0."""

    granularity = Granularity.CHANNEL

    class Numbers(Gate):
        """The numbers."""

        macs = 7

        def __init__(self, site: GateSite) -> None:
            super().__init__(site)
            self.numbers = nn.Parameter(torch.tensor([0.5, -0.5])[: site.channels])

        def forward(self, x: Tensor, threshold: Tensor) -> Tensor:
            hard = (self.numbers >= threshold).to(x.dtype)
            mask = hard + self.numbers - self.numbers.detach()
            return mask.expand(x.shape[0], -1)

    def gate(self, site: GateSite) -> Gate:
        return self.Numbers(site)

    def losses(self, trace: Trace, budget: float, progress: float) -> dict[str, Tensor]:
        return {"rate": (trace.ratio().mean() - budget).square()}


class AsItIs(Views):
    """The first view is the image. The second one is twice as bright, the third three times, and so on."""

    def view(self, image: Image, number: int) -> Tensor:
        return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255 * (1 + number)


def some_images(count: int = 8) -> ArrayImages:
    return ArrayImages(np.random.default_rng(0).integers(0, 255, (count, 4, 4, 3), dtype=np.uint8), None)


def sgd(groups: Sequence[ParameterGroup], lr: float = 0.1) -> Optimizer:
    return SGD([{"params": group.parameters} for group in groups], lr=lr)


def by_hand(
    objective: Objective | None = None,
    gating: GatingScheme | None = None,
    routes: Sequence[Route] | None = None,
    **training: Any,
) -> tuple[Trainer, Encoder]:
    """A trainer of these parts, and its encoder."""
    settings = {"epochs": 1, "batch_size": 8, "workers": 0, "warmup_share": 0.0, "log_every": 1, **training}
    encoder = One(Mean(gating.make_gate if gating else no_gates))
    return Trainer(
        encoder=encoder,
        objective=objective or Distance(),
        gating=gating or NoGating(NoGatingOptions()),
        optimizer=sgd,
        images=some_images(),
        views=AsItIs(),
        image_size=4,
        training=TrainingConfig(**settings),
        budget=BudgetConfig(target=0.9 if gating else None),
        routes=routes or ((Route.GATED, Route.DENSE) if gating else (Route.DENSE, Route.DENSE)),
    ), encoder
