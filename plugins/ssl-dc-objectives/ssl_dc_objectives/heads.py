"""Layers that several of the objectives put on the features."""

from __future__ import annotations

from itertools import pairwise

from torch import nn

import ssl_dc


def hidden_layers(*widths: int) -> list[nn.Module]:
    """Linear, batch norm, ReLU from each width to the next one."""
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        layers += [nn.Linear(before, after, bias=False), ssl_dc.GlobalBatchNorm1d(after), nn.ReLU(inplace=True)]
    return layers


def projector(feature_dim: int, *widths: int) -> nn.Sequential:
    """An MLP of hidden layers and a last linear layer. The last of the widths is that of its output."""
    return nn.Sequential(*hidden_layers(feature_dim, *widths[:-1]), nn.Linear((feature_dim, *widths)[-2], widths[-1]))
