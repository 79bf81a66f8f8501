"""Folding a batch norm into the preceding convolution."""

from __future__ import annotations

from torch import Tensor, nn


def folded(weight: Tensor, bias: Tensor | None, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Fold a batch norm in evaluation mode into the preceding convolution.

    Args:
        weight: Weight of the convolution, (out, in, h, w).
        bias: Bias of the convolution, (out,). None means 0.
        norm: The batch norm. Its running statistics are used.

    Returns:
        Weight (out, in, h, w) and bias (out,) of one convolution that does both, in float32. They are computed in float64.

    Raises:
        ValueError: If the norm has no running statistics.
    """
    if norm.running_mean is None or norm.running_var is None:
        raise ValueError("a batch norm without running statistics cannot be folded")
    scale = (norm.running_var.detach().double() + norm.eps).rsqrt()
    shift = -norm.running_mean.detach().double()
    if bias is not None:
        shift = shift + bias.detach().double()
    if norm.weight is not None:
        scale = scale * norm.weight.detach().double()
    shift = shift * scale
    if norm.bias is not None:
        shift = shift + norm.bias.detach().double()
    return (weight.detach().double() * scale[:, None, None, None]).float(), shift.float()
