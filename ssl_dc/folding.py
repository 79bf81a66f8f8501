"""Batch norm in evaluation mode as part of the convolution before it."""

from __future__ import annotations

from torch import Tensor, nn


def folded(weight: Tensor, bias: Tensor | None, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Weight and bias of a convolution that does what a convolution and a batch norm after it do.

    Args:
        weight: Of the convolution, (out, in, h, w).
        bias: (out,), or None for 0.
        norm: In evaluation mode it uses its running statistics.

    Returns:
        Weight (out, in, h, w) and bias (out,), float32, computed in float64.

    Raises:
        ValueError: If the norm keeps no statistics.
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
