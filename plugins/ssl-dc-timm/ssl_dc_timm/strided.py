"""Strided 1x1 convolutions of few channels, which torch's backward pass may not be given."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

SAFE_CHANNELS = 16
"""Input channels from which on torch computes them without fault.

With fewer of them, in channels-last layout on a CPU with AVX-512, the backward pass writes past the end of a buffer, which
ends the process (uxlfoundation/oneDNN#6035).
"""


class SkippingConv(nn.Conv2d):
    """A 1x1 convolution that drops the pixels that its stride skips before it computes anything."""

    def forward(self, x: Tensor) -> Tensor:
        """What the convolution makes of x (N, C, H, W), to within rounding."""
        rows, columns = self.stride
        return F.conv2d(x[:, :, ::rows, ::columns], self.weight, self.bias)


def avoid_unsafe_convolutions(network: nn.Module) -> None:
    """Let each strided 1x1 convolution of few channels drop pixels first; weights and names stay as they are."""
    for layer in network.modules():
        if type(layer) is nn.Conv2d and _is_unsafe(layer):
            layer.__class__ = SkippingConv


def _is_unsafe(layer: nn.Conv2d) -> bool:
    pointwise = layer.kernel_size == (1, 1) and layer.padding == (0, 0) and layer.groups == 1
    return pointwise and max(layer.stride) > 1 and layer.in_channels < SAFE_CHANNELS
