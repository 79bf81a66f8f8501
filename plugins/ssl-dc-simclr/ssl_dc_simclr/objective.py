"""SimCLR (Chen et al. 2020): the embedding of a view must be nearest to that of the other view of the same image."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import ssl_dc
from ssl_dc_simclr.options import SimCLROptions


def nt_xent(z1: Tensor, z2: Tensor, temperature: float) -> Tensor:
    """NT-Xent of N images in two views (equation 1 and algorithm 1 of the paper).

    The mean, over all 2N embeddings, of the cross-entropy of finding the other view of the same image among the 2N - 1
    other embeddings, by cosine similarity over the temperature.

    Args:
        z1: Embeddings (N, D) of the first view, of length 1.
        z2: Embeddings (N, D) of the second view, of length 1. Each row is of the same image as in ``z1``.
        temperature: Above 0.
    """
    n = len(z1)
    z = torch.cat([z1, z2])
    logits = z @ z.T / temperature
    logits = logits.masked_fill(torch.eye(2 * n, dtype=torch.bool, device=z.device), -torch.inf)
    other_view = torch.arange(2 * n, device=z.device).roll(n)
    return F.cross_entropy(logits, other_view)


class SimCLR(ssl_dc.Objective):
    """The objective ``simclr``: one projection head for both views, and NT-Xent over the global batch.

    Args:
        options: Width of the projection, temperature.
        feature_dim: Width of the features, and of the head's hidden layer.
    """

    def __init__(self, options: SimCLROptions, feature_dim: int) -> None:
        super().__init__()
        self.options = options
        self.projector = nn.Sequential(
            nn.Linear(feature_dim, feature_dim, bias=False),
            ssl_dc.GlobalBatchNorm1d(feature_dim),
            nn.ReLU(inplace=True),
            nn.Linear(feature_dim, options.width, bias=False),
        )

    @property
    def weights(self) -> Mapping[str, float]:
        """One term."""
        return {"contrast": 1.0}

    def forward(self, views: ssl_dc.EncodedViews) -> ssl_dc.ObjectiveOutput:
        """NT-Xent of two views with features (N, feature_dim). The embeddings have length 1."""
        embeddings = [self.projector(features) for features in views.features]
        with torch.autocast(embeddings[0].device.type, enabled=False):
            embeddings = [F.normalize(z.float(), dim=1) for z in embeddings]
            z1, z2 = (ssl_dc.gather_batch(z) for z in embeddings)
            terms = {"contrast": nt_xent(z1, z2, self.options.temperature)}
        return ssl_dc.ObjectiveOutput(terms, embeddings)
