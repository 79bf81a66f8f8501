"""The backbone ``timm``: any network of timm's, with gate sites where they are found."""

from __future__ import annotations

import copy
import difflib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

import timm
import torch
from timm.data import resolve_model_data_config
from timm.layers import PatchEmbed
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import ssl_dc
from ssl_dc_timm.gated import gated
from ssl_dc_timm.norms import replace_batch_norms, split_norm_acts
from ssl_dc_timm.options import TimmOptions
from ssl_dc_timm.sites import SiteFinder
from ssl_dc_timm.strided import avoid_unsafe_convolutions
from ssl_dc_timm.trace import TracedNetwork, UntraceableError, traced

NO_SITES = (
    "no value between two of its convolutions or linear layers is inside a block and treated channel by channel up to them"
)
"""Why a network that can be traced has no gate sites."""


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

    def forward(self, images: Tensor, route: ssl_dc.Route, masks: ssl_dc.Masks) -> Tensor:  # noqa: ARG002
        """Features (N, feature_dim) of images (N, 3, H, W)."""
        return cast(Tensor, self.network(images))


class Timm(ssl_dc.Backbone):
    """The backbone ``timm``: its features are the input of the classifier of timm's network.

    Gate sites are found in the graph of the network (:mod:`ssl_dc_timm.sites`). A network without any can be trained
    without gates.

    Args:
        options: Which network.
        norm_factory: Gives the norms that replace timm's.
        gate_factory: Gives the gates.

    Raises:
        ssl_dc.ConfigError: If there is no such network, it does not take the options, its pretrained weights cannot be had,
            or it computes something whose cost ssl-dc does not count.
    """

    def __init__(self, options: TimmOptions, norm_factory: ssl_dc.NormFactory, gate_factory: ssl_dc.GateFactory) -> None:
        super().__init__()
        self.options = options
        network = create(options)
        self._image_size: int = options.img_size or resolve_model_data_config(network)["input_size"][-1]
        self._no_sites = ""
        split_norm_acts(network)
        try:
            with taken(options.model, self._image_size):
                graph = traced(network, self._image_size)
        except UntraceableError as error:
            self._no_sites = f"{options.model}: {error}"
            self.body: nn.Module = Plain(network, norm_factory)
            self._feature_dim, counted = self._measured()
        else:
            self._feature_dim, counted = graph.features, graph.macs
            self.body = self._with_gates(graph, network, norm_factory, gate_factory)
        self._check_cost(counted)

    @property
    def feature_dim(self) -> int:
        """Width of the features."""
        return self._feature_dim

    def forward(self, images: Tensor, route: ssl_dc.Route) -> tuple[Tensor, ssl_dc.Masks]:
        """Features (N, feature_dim) of images (N, 3, H, W), and the masks of the gated sites."""
        masks: ssl_dc.Masks = {}
        return cast(Tensor, self.body(images, route, masks)), masks

    def why_no_sites(self) -> str:
        """Why no gate sites were found in the network; empty if some were."""
        return self._no_sites

    def cost_model(self, image_size: int | tuple[int, int]) -> ssl_dc.CostModel:
        """The cost of every convolution, linear layer and attention product, and of the gates, for one image of a size.

        Raises:
            ssl_dc.ConfigError: If the network does not take images of that size.
        """
        with taken(self.options.model, image_size):
            return super().cost_model(image_size)

    def _with_gates(
        self, graph: TracedNetwork, network: nn.Module, norm_factory: ssl_dc.NormFactory, gate_factory: ssl_dc.GateFactory
    ) -> nn.Module:
        """The network with gates and the policy's norms; without gates if it has no gate sites."""
        finder = SiteFinder(graph)
        sites = finder.sites()
        if not sites:
            self._no_sites = f"{self.options.model}: {NO_SITES}"
            return Plain(network, norm_factory)
        return gated(graph, finder, sites, "body.", norm_factory, gate_factory)

    def _measured(self) -> tuple[int, int]:
        """Width of the features, and the MACs that torch counts for one image."""
        size = self._image_size
        shadow = copy.deepcopy(self.body).to("meta").eval()
        images = torch.empty(1, 3, size, size, device="meta")
        with taken(self.options.model, size), torch.no_grad(), FlopCounterMode(display=False) as counter:
            features = shadow(images, ssl_dc.Route.DENSE, {})
        return int(features.shape[1]), counter.get_total_flops() // 2

    def _check_cost(self, counted: int) -> None:
        """Hold the cost model to the MACs that torch counts in timm's network for one image."""
        uncounted = counted - self.cost_model(self._image_size).dense_macs
        if uncounted:
            raise ssl_dc.ConfigError(
                f"backbone.model = {self.options.model!r} does not fit ssl-dc's cost model, which counts 2-d convolutions,"
                f" linear layers and attention: {uncounted:,} of its MACs at {self._image_size} px are elsewhere"
            )


@contextmanager
def taken(model: str, image_size: int | tuple[int, int]) -> Iterator[None]:
    """Turn the error of a network that does not take an image size into one message."""
    try:
        yield
    except (AssertionError, RuntimeError, ValueError) as error:
        raise ssl_dc.ConfigError(
            f"backbone.model = {model!r} does not take images of {image_size} px: {error} (where a network takes one"
            f" size only, backbone.img_size sets it, and local views cannot be smaller)"
        ) from error


def create(options: TimmOptions) -> nn.Module:
    """Timm's network of that name, without classifier.

    Raises:
        ssl_dc.ConfigError: If there is none, it does not take the options, or its pretrained weights cannot be had.
    """
    if not timm.is_model(options.model):
        near = difflib.get_close_matches(options.model, timm.list_models(), n=3)
        raise ssl_dc.ConfigError(
            f"backbone.model = {options.model!r}: timm {timm.__version__} has no such network"
            f"{'; near: ' + ', '.join(near) if near else ''}"
        )
    sizes = {name: size for name in ("img_size", "patch_size") if (size := getattr(options, name)) is not None}
    try:
        network: nn.Module = timm.create_model(options.model, pretrained=options.pretrained, num_classes=0, **sizes)
    except Exception as error:
        if sizes and isinstance(error, (TypeError, AssertionError)):
            raise ssl_dc.ConfigError(
                f"backbone.{', backbone.'.join(sizes)}: {options.model!r} does not take this: {error}"
            ) from error
        if not options.pretrained:
            raise
        raise ssl_dc.ConfigError(f"backbone.pretrained: the weights of {options.model!r} cannot be had: {error}") from error
    if sizes:
        _check_patches(options.model, network)
    avoid_unsafe_convolutions(network)
    return network


def _check_patches(model: str, network: nn.Module) -> None:
    """Check that the patches of a ViT fill its images, whose last rows and columns it would otherwise never see.

    Raises:
        ssl_dc.ConfigError: If they do not.
    """
    embedding = getattr(network, "patch_embed", None)
    if not isinstance(embedding, PatchEmbed) or embedding.img_size is None or embedding.dynamic_img_pad:
        return
    for side, patch in zip(embedding.img_size, embedding.patch_size, strict=True):
        if side % patch:
            allowed = ", ".join(str(size) for size in range(1, side + 1) if side % size == 0)
            raise ssl_dc.ConfigError(
                f"backbone.patch_size = {patch}: {model!r} would not see the last {side % patch} rows and columns of images"
                f" of {side} px; allowed for this backbone.img_size: {allowed}"
            )
