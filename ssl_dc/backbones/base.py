"""What a backbone is: a network family that declares its gate sites and counts its own cost."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from ssl_dc.backbones.attention import AttentionProducts
from ssl_dc.errors import ConfigError, PluginError
from ssl_dc.gating.base import Gate, GateFactory
from ssl_dc.gating.cost import CostModel, ImageSize, LayerCost, height_and_width
from ssl_dc.gating.sites import GateSite, Granularity, masked, positions_in_cells
from ssl_dc.routes import Route

Masks = dict[str, Tensor]
"""The mask (N, channels) of each gated site, by the site's name. It is filled while a gated view passes."""


class TimmNetwork(NamedTuple):
    """A route of a backbone as a network of timm's.

    Attributes:
        architecture: Its name in timm's registry.
        arguments: What the architecture is built with, as JSON can hold it.
        state: Its state_dict, without a classifier.
        definition: Text of a Python file that registers the architecture. None if timm has it itself.
    """

    architecture: str
    arguments: Mapping[str, Any]
    state: Mapping[str, Tensor]
    definition: str | None = None


class GatePoint(nn.Module):
    """One gate site in the network: the site, and the gate that a scheme put there, if any.

    Args:
        site: The site that the gate factory is called with.
        gate_factory: Gives the gate, or None for a site that stays open.

    Attributes:
        gate: The gate, or None.
        site: The site as the gate acts on it.
    """

    gate: Gate | None

    def __init__(self, site: GateSite, gate_factory: GateFactory) -> None:
        super().__init__()
        self.gate = gate_factory(site)
        self.site = site if self.gate is None else self.gate.site

    def forward(self, activation: Tensor, block_input: Tensor, route: Route, masks: Masks) -> Tensor:
        """The activation, in which the gate sets to 0 what it shuts. The dense route leaves it unchanged.

        A site may mask several activations of its block, one call for each. The gate decides in the first call.

        Args:
            activation: What the site gates: (N, C, H, W), or another shape if the site names the axis of its channels. C is
                the site's ``channels`` or a multiple of them; any number for a mask of width 1.
            block_input: What the gate decides on, (N, in_channels, H', W'). Tokens (N, T, C) come as (N, C, T, 1).
            route: A dense route does not run the gate. A gated one gives the gate the thresholds of its budget.
            masks: The mask is added to it.

        Raises:
            PluginError: If the gate gives a mask of another shape than (N, channels).
        """
        if not route.gated or self.gate is None:
            return activation
        if self.site.name not in masks:
            mask = self.gate(block_input, self.gate.threshold_for(route.budget))
            if mask.ndim != 2 or mask.shape[1] != self.site.channels:
                raise PluginError(_wrong_mask(self.gate, mask))
            masks[self.site.name] = mask
        return masked(activation, masks[self.site.name], self.site)


def _wrong_mask(gate: Gate, mask: Tensor) -> str:
    name = f"{type(gate).__module__}.{type(gate).__qualname__}"
    return f"the gate at {gate.site.name} ({name}) must give a mask (N, {gate.site.channels}), not {tuple(mask.shape)}"


class Backbone(nn.Module, ABC):
    """A network from images to features, with gate sites.

    A backbone does not know which gating scheme or norm policy is in use: it calls the two factories that it is built
    with. Each of its gate sites is a :class:`GatePoint`.
    """

    @property
    @abstractmethod
    def feature_dim(self) -> int:
        """Width of the features."""

    @abstractmethod
    def forward(self, images: Tensor, route: Route) -> tuple[Tensor, Masks]:
        """Features (N, feature_dim) of images (N, 3, H, W), and the masks of the gated sites (none on the dense route)."""

    def gate_points(self) -> list[GatePoint]:
        """Every gate site of the network, in the order of its modules."""
        return [module for module in self.modules() if isinstance(module, GatePoint)]

    def why_no_sites(self) -> str:
        """Why the network has no gate sites, as the end of a sentence; empty if there is nothing to say about it."""
        return ""

    def torchvision_state_dict(self, route: Route) -> dict[str, Tensor]:
        """The weights of a route by the names of torchvision's network of the same kind, without its classifier.

        Raises:
            ConfigError: If torchvision has no such network. The default is that it has none.
        """
        raise ConfigError(
            f"only the built-in ResNets are written for torchvision; this backbone is {type(self).__name__} (route {route})"
        )

    def timm_network(self, route: Route) -> TimmNetwork:
        """The weights of a route for timm.

        Raises:
            ConfigError: If timm has no such network. The default is that it has none.
        """
        raise ConfigError(
            f"only the built-in ResNets are written for timm; this backbone is {type(self).__name__} (route {route})"
        )

    def torchvision_names(self) -> dict[str, str]:
        """Names of the state_dict, with the names that torchvision's network of the same kind has for the same weights.

        A training takes weights of torchvision's and timm's networks by them (``training.init``). Norms of several routes
        may have the same name there. The default is that torchvision has no such network.
        """
        return {}

    def cost_model(self, image_size: ImageSize) -> CostModel:
        """The cost of every convolution, linear layer and attention product, and of the gates, for one image of a size.

        A forward pass on the meta device, which computes nothing, counts them from the shapes that the layers see.
        """
        points = [point for point in self.gate_points() if point.gate is not None]
        sites_of_layer: dict[str, list[GateSite]] = {}
        for point in points:
            for layer in point.site.layers:
                sites_of_layer.setdefault(layer, []).append(point.site)
        layers = [
            _layer_cost(name, macs, sites_of_layer.get(name, ()), output)
            for name, macs, output in _count_layers(self, image_size)
        ]
        gates = [
            LayerCost(f"{point.site.name}.gate", point.gate.macs, gate=True) for point in points if point.gate is not None
        ]
        return CostModel((*layers, *gates), {point.site.name: point.site.channels for point in points})


CountedLayer = nn.Conv2d | nn.Linear | AttentionProducts
"""The kinds of layer that the cost model counts."""


def macs_of(layer: CountedLayer, inputs: Sequence[Tensor], output: Tensor) -> int:
    """MACs that a counted layer runs to make an output from its inputs, all images together."""
    if isinstance(layer, AttentionProducts):
        return layer.macs(*inputs[:3])
    channels = layer.out_channels if isinstance(layer, nn.Conv2d) else layer.out_features
    return output.numel() // channels * layer.weight.numel()


def _layer_cost(name: str, macs: int, sites: Sequence[GateSite], output: torch.Size) -> LayerCost:
    """The cost of a layer with an output of this shape under the masks of its sites."""
    cells = {
        site.name: positions_in_cells(site.grid, output[2:]) for site in sites if site.granularity is Granularity.POSITION
    }
    return LayerCost(name, macs, tuple(site.name for site in sites), cells=cells)


def _count_layers(backbone: Backbone, image_size: ImageSize) -> list[tuple[str, int, torch.Size]]:
    """Name, MACs and output shape of each counted layer of the dense route, in the order in which they run."""
    shadow = _without_weights(backbone).eval()
    counted: list[tuple[str, int, torch.Size]] = []

    def count(name: str, layer: CountedLayer) -> Any:
        def hook(_module: nn.Module, inputs: Sequence[Tensor], output: Tensor) -> None:
            counted.append((name, macs_of(layer, inputs, output), output.shape))

        return hook

    for name, module in shadow.named_modules():
        if isinstance(module, CountedLayer):
            module.register_forward_hook(count(name, module))
    with torch.no_grad(), _ShapesKept():
        shadow(torch.empty(1, 3, *height_and_width(image_size), device="meta"), Route.DENSE)
    return counted


def _without_weights(backbone: Backbone) -> Backbone:
    """A copy of a backbone on the meta device. Its weights are not copied, however large they are."""
    outlines: dict[int, Any] = {id(tensor): tensor.to("meta") for tensor in backbone.buffers()}
    for weight in backbone.parameters():
        outlines[id(weight)] = nn.Parameter(weight.detach().to("meta"), requires_grad=False)
    return copy.deepcopy(backbone, outlines)


class _ShapesKept(TorchFunctionMode):
    """Answers for functions that keep the shape of their input.

    Torch works these shapes out in Python, which takes longer than all else here, and imports its compiler to do so.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        return args[0] if args and func in _KEEP_SHAPE else func(*args, **(kwargs or {}))


_KEEP_SHAPE = {functional.batch_norm, functional.relu, torch.relu}
