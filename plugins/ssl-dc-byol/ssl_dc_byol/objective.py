"""BYOL (Grill et al. 2020): from one view, predict the projection of the other view by a slowly following copy."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import ssl_dc
from ssl_dc_byol.options import BYOLOptions


def distance(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean over the batch of 2 - 2 cos of predictions and targets (N, D), row by row (equation 2 of the paper)."""
    return (2 - 2 * F.cosine_similarity(prediction, target, dim=1)).mean()


def head(in_width: int, options: BYOLOptions) -> nn.Sequential:
    """A projector or a predictor: Linear, batch norm, ReLU, Linear without bias."""
    return nn.Sequential(
        nn.Linear(in_width, options.hidden_width),
        ssl_dc.GlobalBatchNorm1d(options.hidden_width),
        nn.ReLU(inplace=True),
        nn.Linear(options.hidden_width, options.width, bias=False),
    )


class BYOL(ssl_dc.Objective):
    """The objective ``byol``: projector, predictor, and a momentum copy of encoder and projector as target.

    Args:
        options: Widths, momentum, route of the target.
        feature_dim: Width of the features.
    """

    def __init__(self, options: BYOLOptions, feature_dim: int) -> None:
        super().__init__()
        self.projector = head(feature_dim, options)
        self.predictor = head(options.width, options)
        self.target = ssl_dc.MomentumTarget(options)

    @property
    def weights(self) -> Mapping[str, float]:
        """One term."""
        return {"regression": 1.0}

    def bind(self, encoder: ssl_dc.Encoder) -> None:
        """Make the target, which equals the network at first."""
        self.target.bind(encoder, self.projector)

    def forward(self, views: ssl_dc.EncodedViews) -> ssl_dc.ObjectiveOutput:
        """The regression of two views with features (N, feature_dim): each view predicts the target of the other.

        The embeddings are the predictions, scaled to length 1.
        """
        predictions = [self.predictor(self.projector(features)) for features in views.features]
        targets = self.target(views.images, views.routes)
        with torch.autocast(predictions[0].device.type, enabled=False):
            embeddings = [F.normalize(prediction.float(), dim=1) for prediction in predictions]
            p1, p2 = (ssl_dc.gather_batch(z) for z in embeddings)
            t1, t2 = (ssl_dc.gather_batch(target.float()) for target in targets)
            terms = {"regression": distance(p1, t2) + distance(p2, t1)}
        return ssl_dc.ObjectiveOutput(terms, embeddings)

    def after_step(self, encoder: ssl_dc.Encoder, progress: float) -> None:
        """Move the target towards the network."""
        self.target.follow(encoder, self.projector, progress)
