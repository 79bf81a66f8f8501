"""The backbone ``timm``: any convolutional network of timm, its ResNets with gate sites."""

from __future__ import annotations

import copy
import difflib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

import timm
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import ssl_dc
from ssl_dc_timm.norms import replace_batch_norms
from ssl_dc_timm.options import TimmOptions
from ssl_dc_timm.resnet import GatedResNet, has_known_blocks
from ssl_dc_timm.strided import avoid_unsafe_convolutions

_PROBE_SIZE = 224
"""Side in pixels of the images that a new network is tried on, on the meta device."""


class Plain(nn.Module):
    """A network of timm's without classifier and without gate sites. Its routes are all the same.

    Args:
        network: Its batch norms are replaced by the policy's, in place.
        norm_factory: Gives the norms.
    """

    def __init__(self, network: nn.Module, norm_factory: ssl_dc.NormFactory) -> None:
        super().__init__()
        replace_batch_norms(network, norm_factory)
        self.network = network

    def forward(self, images: Tensor, route: ssl_dc.Route) -> tuple[Tensor, ssl_dc.Masks]:  # noqa: ARG002
        """Features (N, feature_dim) of images (N, 3, H, W), and no masks."""
        return self.network(images), {}


class Timm(ssl_dc.Backbone):
    """The backbone ``timm``: its features are the input of the classifier of timm's network.

    ResNets of basic blocks and bottlenecks (ResNet, ResNet-C, -D, -S, -T, Wide ResNet, ResNeXt, SE-ResNet and more)
    declare gate sites; every other network has none.

    Args:
        options: Which network.
        norm_factory: Gives the norms that replace timm's batch norms.
        gate_factory: Gives the gates.

    Raises:
        ssl_dc.ConfigError: If there is no such network, its pretrained weights cannot be had, or it computes something
            whose cost ssl-dc does not count, such as attention between positions.
    """

    def __init__(self, options: TimmOptions, norm_factory: ssl_dc.NormFactory, gate_factory: ssl_dc.GateFactory) -> None:
        super().__init__()
        self.options = options
        network = create(options)
        self.body: nn.Module
        if has_known_blocks(network):
            self.body = GatedResNet("body", network, norm_factory, gate_factory)  # type: ignore[arg-type]
        else:
            self.body = Plain(network, norm_factory)
        self._feature_dim = self._checked_feature_dim()

    @property
    def feature_dim(self) -> int:
        """Width of the features."""
        return self._feature_dim

    def forward(self, images: Tensor, route: ssl_dc.Route) -> tuple[Tensor, ssl_dc.Masks]:
        """Features (N, feature_dim) of images (N, 3, H, W), and the masks of the gated sites."""
        return cast("tuple[Tensor, ssl_dc.Masks]", self.body(images, route))

    def cost_model(self, image_size: int | tuple[int, int]) -> ssl_dc.CostModel:
        """The cost of every convolution and linear layer, and of the gates, for one image of a size.

        Raises:
            ssl_dc.ConfigError: If the network does not take images of that size.
        """
        with taken(self.options.model, image_size):
            return super().cost_model(image_size)

    def _checked_feature_dim(self) -> int:
        """Width of the features. It also checks that the cost model counts all that the network computes."""
        shadow = copy.deepcopy(self).to("meta").eval()
        images = torch.empty(1, 3, _PROBE_SIZE, _PROBE_SIZE, device="meta")
        with taken(self.options.model, _PROBE_SIZE), torch.no_grad(), FlopCounterMode(display=False) as counter:
            features, _ = shadow(images, ssl_dc.Route.DENSE)
        uncounted = counter.get_total_flops() // 2 - self.cost_model(_PROBE_SIZE).dense_macs
        if uncounted:
            raise ssl_dc.ConfigError(
                f"backbone.model = {self.options.model!r} does not fit ssl-dc's cost model, which counts 2-d convolutions"
                f" and linear layers: {uncounted:,} of its MACs, for an image of {_PROBE_SIZE} px, are elsewhere"
            )
        return int(features.shape[1])


@contextmanager
def taken(model: str, image_size: int | tuple[int, int]) -> Iterator[None]:
    """Turn the error of a network that does not take an image size into one message."""
    try:
        yield
    except (AssertionError, RuntimeError, ValueError) as error:
        raise ssl_dc.ConfigError(f"backbone.model = {model!r} does not take images of {image_size} px: {error}") from error


def create(options: TimmOptions) -> nn.Module:
    """Timm's network of that name, without classifier.

    Raises:
        ssl_dc.ConfigError: If there is none, or its pretrained weights cannot be had.
    """
    if not timm.is_model(options.model):
        near = difflib.get_close_matches(options.model, timm.list_models(), n=3)
        raise ssl_dc.ConfigError(
            f"backbone.model = {options.model!r}: timm {timm.__version__} has no such network"
            f"{'; near: ' + ', '.join(near) if near else ''}"
        )
    try:
        network: nn.Module = timm.create_model(options.model, pretrained=options.pretrained, num_classes=0)
    except Exception as error:
        if not options.pretrained:
            raise
        raise ssl_dc.ConfigError(f"backbone.pretrained: the weights of {options.model!r} cannot be had: {error}") from error
    avoid_unsafe_convolutions(network)
    return network
