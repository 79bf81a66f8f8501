"""BYOL (Grill et al. 2020): from one view, predict the projection of the other view by a slowly following copy."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import ssl_dc
from ssl_dc_byol.options import BYOLOptions

BATCH_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
"""Buffers of batch norms. The target's own forward passes update them."""


def distance(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean over the batch of 2 - 2 cos of predictions and targets (N, D), row by row (equation 2 of the paper)."""
    return (2 - 2 * F.cosine_similarity(prediction, target, dim=1)).mean()


def momentum_at(progress: float, start: float) -> float:
    """The share of itself that the target keeps at a step: 1 - (1 - start) * (cos(pi * progress) + 1) / 2.

    Args:
        progress: The share k / K of training done, in [0, 1].
        start: tau_base of the paper, in [0, 1].
    """
    return 1 - (1 - start) * (math.cos(math.pi * progress) + 1) / 2


@torch.no_grad()
def follow(target: nn.Module, online: nn.Module, momentum: float) -> None:
    """Move a copy towards the network that it was copied from.

    Its parameters become momentum * its own + (1 - momentum) * the network's. It keeps its own batch statistics, which its
    forward passes gather. Any other buffer, such as the thresholds of a gate, becomes the network's.

    Args:
        target: The copy. It is changed in place.
        online: The network.
        momentum: tau of the paper, in [0, 1].
    """
    for copied, parameter in zip(target.parameters(), online.parameters(), strict=True):
        copied.lerp_(parameter, 1 - momentum)
    for (name, own), buffer in zip(target.named_buffers(), online.buffers(), strict=True):
        if not name.endswith(BATCH_STATISTICS):
            own.copy_(buffer)


def head(in_width: int, options: BYOLOptions) -> nn.Sequential:
    """A projector or a predictor: Linear, batch norm, ReLU, Linear without bias."""
    return nn.Sequential(
        nn.Linear(in_width, options.hidden_width),
        ssl_dc.GlobalBatchNorm1d(options.hidden_width),
        nn.ReLU(inplace=True),
        nn.Linear(options.hidden_width, options.width, bias=False),
    )


class Target(nn.Module):
    """The momentum copy of encoder and projector. Nothing in it requires a gradient, so no optimiser trains it.

    Args:
        encoder: The encoder to copy.
        projector: The projector to copy.
    """

    def __init__(self, encoder: ssl_dc.Encoder, projector: nn.Module) -> None:
        super().__init__()
        self.encoder = copy.deepcopy(encoder).requires_grad_(requires_grad=False)
        self.projector = copy.deepcopy(projector).requires_grad_(requires_grad=False)

    @torch.no_grad()
    def forward(self, images: Tensor, route: ssl_dc.Route) -> Tensor:
        """The projection (N, width) of images (N, 3, H, W)."""
        projection: Tensor = self.projector(self.encoder(images, route).features)
        return projection


class BYOL(ssl_dc.Objective):
    """The objective ``byol``: projector, predictor and target.

    The target is a submodule. It is therefore saved, moved to a device and set to training mode with the rest.

    Args:
        options: Widths, momentum, route of the target.
        feature_dim: Width of the features.
    """

    def __init__(self, options: BYOLOptions, feature_dim: int) -> None:
        super().__init__()
        self.options = options
        self.projector = head(feature_dim, options)
        self.predictor = head(options.width, options)
        self.target: Target | None = None

    @property
    def weights(self) -> Mapping[str, float]:
        """One term."""
        return {"regression": 1.0}

    def bind(self, encoder: ssl_dc.Encoder) -> None:
        """Make the target, which equals the network at first."""
        self.target = Target(encoder, self.projector)

    def forward(self, views: ssl_dc.EncodedViews) -> ssl_dc.ObjectiveOutput:
        """The regression of two views with features (N, feature_dim): each view predicts the target of the other.

        The embeddings are the predictions, scaled to length 1.
        """
        predictions = [self.predictor(self.projector(features)) for features in views.features]
        targets = [
            self._bound()(images, self._target_route(route))
            for images, route in zip(views.images, views.routes, strict=True)
        ]
        with torch.autocast(predictions[0].device.type, enabled=False):
            embeddings = [F.normalize(prediction.float(), dim=1) for prediction in predictions]
            p1, p2 = (ssl_dc.gather_batch(z) for z in embeddings)
            t1, t2 = (ssl_dc.gather_batch(target.float()) for target in targets)
            terms = {"regression": distance(p1, t2) + distance(p2, t1)}
        return ssl_dc.ObjectiveOutput(terms, embeddings)

    def after_step(self, encoder: ssl_dc.Encoder, progress: float) -> None:
        """Move the target towards the network."""
        momentum = momentum_at(progress, self.options.momentum)
        follow(self._bound().encoder, encoder, momentum)
        follow(self._bound().projector, self.projector, momentum)

    def _target_route(self, route: ssl_dc.Route) -> ssl_dc.Route:
        """The route of the target, for a view of the given route."""
        return route if self.options.target_route == "same" else ssl_dc.Route.DENSE

    def _bound(self) -> Target:
        if self.target is None:
            raise RuntimeError("the objective byol has no target yet: call bind(encoder) before training")
        return self.target
