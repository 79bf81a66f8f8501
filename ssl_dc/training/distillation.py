"""In-place distillation: the gated route learns from the dense one of the same weights (US3L, Cao et al. 2023)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ssl_dc.distributed import gather_batches

TERM = "distillation"
"""Name of the loss term."""
LEAST_VARIANCE = 1e-6
"""Variance of the dense features at least: where they are nearly equal for all images, their spread is no measure."""


def distillation(pairs: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """How far gated features are from dense ones: |gated - dense|^2 / |dense - mean of dense|^2, over the global batch.

    0 where both agree, and 1 where the gated ones are the mean of the dense ones. Only the gated ones get a gradient.

    Args:
        pairs: Gated and dense features (N, d) of each gated view.

    Returns:
        The mean over the views, a scalar in float32.
    """
    shares = []
    for pair in pairs:
        gated, dense = gather_batches([features.float() for features in pair])
        dense = dense.detach()
        spread = (dense - dense.mean(dim=0)).square().sum()
        shares.append((gated - dense).square().sum() / spread.clamp(min=LEAST_VARIANCE * dense.numel()))
    return torch.stack(shares).mean()


def with_gradient_share(features: Tensor, share: float) -> Tensor:
    """The same features, through which only a share in [0, 1] of the gradient passes."""
    return features if share == 1 else share * features + (1 - share) * features.detach()
