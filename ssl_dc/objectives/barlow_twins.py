"""Barlow Twins (Zbontar et al. 2021): draws the cross-correlation of two standardised embeddings to the identity."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_dc.distributed import gather_batches
from ssl_dc.objectives.base import EncodedViews, Objective, ObjectiveOutput
from ssl_dc.objectives.heads import Expander
from ssl_dc.objectives.options import BarlowTwinsOptions
from ssl_dc.objectives.statistics import off_diagonal


def cross_correlation(z1: Tensor, z2: Tensor) -> Tensor:
    """C = BN(z1)^T BN(z2) / N, (D, D), of two embeddings (N, D). BN uses biased batch statistics and eps 1e-5."""
    standard1, standard2 = (F.batch_norm(z, None, None, training=True, eps=1e-5) for z in (z1, z2))
    return standard1.T @ standard2 / z1.shape[0]


class BarlowTwins(Objective):
    """The objective ``barlow_twins``: scale * (sum (C_ii - 1)^2 + lambda * sum_{i != j} C_ij^2), of two views.

    Args:
        options: lambda, scale, width of the expander.
        feature_dim: Width of the features.
    """

    def __init__(self, options: BarlowTwinsOptions, feature_dim: int) -> None:
        super().__init__()
        self.options = options
        self.expander = Expander(feature_dim, options.expander_width)

    @property
    def weights(self) -> Mapping[str, float]:
        """The scale, and lambda times the scale."""
        return {"on_diagonal": self.options.scale, "off_diagonal": self.options.scale * self.options.off_diagonal}

    def forward(self, views: EncodedViews) -> ObjectiveOutput:
        """The terms of two views with features (N, feature_dim)."""
        embeddings = [self.expander(features) for features in views.features]
        with torch.autocast(embeddings[0].device.type, enabled=False):
            correlation = cross_correlation(*gather_batches([z.float() for z in embeddings]))
            terms = {
                "on_diagonal": (correlation.diagonal() - 1).square().sum(),
                "off_diagonal": off_diagonal(correlation).square().sum(),
            }
        return ObjectiveOutput(terms, embeddings)
