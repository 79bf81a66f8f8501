"""What an encoder is: how the two routes share weights."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor, nn

from ssl_dc.backbones.base import Backbone, Masks
from ssl_dc.gating.base import GateFactory
from ssl_dc.gating.cost import CostModel, ImageSize
from ssl_dc.routes import Route

MakeBackbone = Callable[[GateFactory], Backbone]
"""Builds one backbone whose gates come from the given factory."""


class Encoded(NamedTuple):
    """What the encoder makes of one view.

    Attributes:
        features: (N, feature_dim).
        masks: For each gated site the mask (N, channels); empty on the dense route.
    """

    features: Tensor
    masks: Masks


class Encoder(nn.Module, ABC):
    """Sends a view through the backbone of its route."""

    @abstractmethod
    def backbone(self, route: Route) -> Backbone:
        """The backbone that a route runs through."""

    @property
    def feature_dim(self) -> int:
        """Width of the features, the same on both routes."""
        return self.backbone(Route.DENSE).feature_dim

    def forward(self, images: Tensor, route: Route) -> Encoded:
        """Features and masks of images (N, 3, H, W)."""
        return Encoded(*self.backbone(route)(images, route))

    def cost_model(self, image_size: ImageSize) -> CostModel:
        """The cost of the gated route's network, dense and gated, for images of a size."""
        return self.backbone(Route.GATED).cost_model(image_size)
