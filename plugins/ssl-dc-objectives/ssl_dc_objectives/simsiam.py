"""SimSiam (Chen and He 2021): predict the projection of the other view, which gets no gradient."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import ssl_dc
from ssl_dc_objectives.heads import hidden_layers, projector
from ssl_dc_objectives.options import SimSiamOptions


def negative_cosine(prediction: Tensor, target: Tensor) -> Tensor:
    """D(p, stopgrad(z)) = -(p / |p|) . (z / |z|), the mean over the rows of (N, D) (equations 1 and 3 of the paper)."""
    return -F.cosine_similarity(prediction, target.detach(), dim=1).mean()


class SimSiam(ssl_dc.Objective):
    """The objective ``simsiam``: D(p1, stopgrad(z2)) / 2 + D(p2, stopgrad(z1)) / 2 (equation 4 of the paper).

    z is the projection of a view, and p the prediction that is made of it. The projector has batch norm after each layer,
    after the last one without scale and shift (the authors' code). The predictor has it after its hidden layer only.

    Args:
        options: Widths.
        feature_dim: Width of the features.
    """

    def __init__(self, options: SimSiamOptions, feature_dim: int) -> None:
        super().__init__()
        width = options.width
        self.projector = nn.Sequential(
            *hidden_layers(feature_dim, width, width),
            nn.Linear(width, width, bias=False),
            ssl_dc.GlobalBatchNorm1d(width, affine=False),
        )
        self.predictor = projector(width, options.hidden_width, width)

    @property
    def weights(self) -> Mapping[str, float]:
        """One term. It is -1 where all predictions are right."""
        return {"similarity": 1.0}

    def forward(self, views: ssl_dc.EncodedViews) -> ssl_dc.ObjectiveOutput:
        """The term of two views with features (N, feature_dim). The embeddings are the projections, of length 1.

        A collapse shows in their standard deviation: it is near 1 / sqrt(width) without, and 0 with it (section 4.1).
        """
        projections = [self.projector(features) for features in views.features]
        predictions = [self.predictor(z) for z in projections]
        with torch.autocast(projections[0].device.type, enabled=False):
            z1, z2 = (ssl_dc.gather_batch(z.float()) for z in projections)
            p1, p2 = (ssl_dc.gather_batch(p.float()) for p in predictions)
            terms = {"similarity": (negative_cosine(p1, z2) + negative_cosine(p2, z1)) / 2}
            embeddings = [F.normalize(z.float(), dim=1) for z in projections]
        return ssl_dc.ObjectiveOutput(terms, embeddings)
