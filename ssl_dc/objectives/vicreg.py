"""VICReg: variance, invariance and covariance regularisation (Bardes et al. 2022; equation 1 of the paper)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_dc.distributed import gather_batches
from ssl_dc.objectives.base import EncodedViews, Objective, ObjectiveOutput
from ssl_dc.objectives.heads import Expander
from ssl_dc.objectives.options import VICRegOptions
from ssl_dc.objectives.statistics import off_diagonal


def invariance(z1: Tensor, z2: Tensor) -> Tensor:
    """Mean squared error between two embeddings (N, D), over all elements."""
    return F.mse_loss(z1, z2)


def variance(z: Tensor) -> Tensor:
    """Mean over dimensions of how far the standard deviation of an embedding (N, D) falls short of 1."""
    return F.relu(1 - torch.sqrt(z.var(dim=0, unbiased=True) + 1e-4)).mean()


def covariance(z: Tensor) -> Tensor:
    """Sum of the squared off-diagonal entries of the covariance of an embedding (N, D), divided by D."""
    n, d = z.shape
    centred = z - z.mean(dim=0)
    cov = centred.T @ centred / (n - 1)
    return off_diagonal(cov).square().sum() / d


class VICReg(Objective):
    """The objective ``vicreg``: one expander for both views, and the three terms on its output.

    Args:
        options: Weights, width of the expander.
        feature_dim: Width of the features.
    """

    def __init__(self, options: VICRegOptions, feature_dim: int) -> None:
        super().__init__()
        self.options = options
        self.expander = Expander(feature_dim, options.expander_width)

    @property
    def weights(self) -> Mapping[str, float]:
        """The three weights. The paper prints 25 and 1 in the wrong order (method section 2)."""
        return {
            "invariance": self.options.invariance,
            "variance": self.options.variance,
            "covariance": self.options.covariance,
        }

    def forward(self, views: EncodedViews) -> ObjectiveOutput:
        """The terms of two views with features (N, feature_dim)."""
        embeddings = [self.expander(features) for features in views.features]
        with torch.autocast(embeddings[0].device.type, enabled=False):
            z1, z2 = gather_batches([z.float() for z in embeddings])
            share = 1.0 if self.options.variance_over_views == "sum" else 0.5
            terms = {
                "invariance": invariance(z1, z2),
                "variance": share * (variance(z1) + variance(z2)),
                "covariance": covariance(z1) + covariance(z2),
            }
        return ObjectiveOutput(terms, embeddings)
