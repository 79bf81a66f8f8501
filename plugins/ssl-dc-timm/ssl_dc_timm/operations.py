"""What the layers and functions of a traced network do to channels."""

from __future__ import annotations

import operator
from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from timm.layers import Conv2dSame, DropBlock2d, DropPath
from torch import fx, nn

import ssl_dc
from ssl_dc_timm.strided import SkippingConv

WEIGHTED_LAYERS = (nn.Conv2d, Conv2dSame, SkippingConv, nn.Linear)
"""Layers whose output channel needs its row of the weight only, and whose input channel its column only."""

COUNTED_LAYERS = (nn.Conv2d, nn.Linear, ssl_dc.AttentionProducts)
"""Layers that the cost model counts."""

CHANNELWISE_LAYERS = (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)
"""Layers on (N, C, H, W) that treat each channel by itself, and map zeros to zeros."""

POINTWISE_LAYERS = (nn.Identity, nn.Dropout, nn.Dropout2d, DropPath, DropBlock2d)
"""Layers that treat each value by itself, and map zeros to zeros."""

NOT_POINTWISE = {"Softmax", "Softmin", "LogSoftmax", "Softmax2d", "GLU", "MultiheadAttention", "PReLU"}
"""Layers among the activations that mix values or have a weight for each channel."""

ACTIVATIONS = ("torch.nn.modules.activation", "timm.layers.activations", "timm.layers.activations_me")
"""Modules that define activations."""

POINTWISE_FUNCTIONS = (F.relu, F.relu6, F.silu, F.gelu, F.hardswish, F.leaky_relu, F.mish, torch.relu, torch.tanh)
POINTWISE_METHODS = {"relu", "relu_", "tanh", "contiguous", "clone"}
"""Functions and methods that treat each value by itself, and map zeros to zeros."""

OPEN_FUNCTIONS = (F.sigmoid, F.hardsigmoid, torch.sigmoid)
OPEN_METHODS = {"sigmoid", "sigmoid_"}
"""The same that do not map zeros to zeros."""

PRODUCTS = (operator.mul, operator.imul, torch.mul)
SUMS = (operator.add, operator.iadd, torch.add)

LAYOUT_METHODS = {"reshape", "view", "permute", "transpose", "unbind", "contiguous", "chunk", "flatten"}
"""Methods that move values, between a layer and attention."""


def calls(node: fx.Node, functions: tuple[Any, ...], methods: set[str]) -> bool:
    """Whether a node calls one of some functions, or a method by one of some names."""
    return (node.op == "call_function" and node.target in functions) or (
        node.op == "call_method" and node.target in methods
    )


def nodes(arguments: Iterable[Any]) -> list[fx.Node]:
    """Those arguments of a call that are values of the graph."""
    return [each for each in arguments if isinstance(each, fx.Node)]


def is_activation(layer: nn.Module) -> bool:
    """Whether a layer treats each value by itself and has no weights."""
    return type(layer).__module__ in ACTIVATIONS and type(layer).__name__ not in NOT_POINTWISE


def maps_zero_to_zero(layer: nn.Module) -> bool:
    """Whether an activation makes zeros of zeros."""
    with torch.no_grad():
        return float(layer(torch.zeros(1))) == 0


def groups_of(layer: nn.Module | None) -> int:
    """The groups of a convolution; 1 for any other layer."""
    return layer.groups if isinstance(layer, nn.Conv2d) else 1


def has_bias(layer: nn.Module | None) -> bool:
    """Whether a layer adds a bias."""
    return getattr(layer, "bias", None) is not None


def channels_of(layer: nn.Module | None, side: str) -> int:
    """The channels that a layer reads ("in") or makes ("out")."""
    return int(getattr(layer, f"{side}_channels" if isinstance(layer, nn.Conv2d) else f"{side}_features"))
