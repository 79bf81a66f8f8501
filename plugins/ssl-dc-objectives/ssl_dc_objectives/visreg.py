"""VISReg (Wu, Balestriero and Levine 2026): as SIGReg, with the scale of the embeddings apart from their shape."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

import ssl_dc
from ssl_dc_objectives.agreement import distance_to_mean
from ssl_dc_objectives.draws import SharedDraws
from ssl_dc_objectives.heads import projector
from ssl_dc_objectives.options import VISRegOptions


def deviation(z: Tensor) -> Tensor:
    """The biased standard deviation sigma (V, D) of each dimension of embeddings (V, N, D), plus 1e-6."""
    centred = z - z.mean(dim=1, keepdim=True)
    return torch.linalg.vector_norm(centred, dim=1) / z.shape[1] ** 0.5 + 1e-6


def scale(z: Tensor) -> Tensor:
    """(1 - sigma)^2, the mean over dimensions and views. Its gradient does not vanish when the embeddings collapse."""
    return (1 - deviation(z)).square().mean()


def center(z: Tensor) -> Tensor:
    """Square of the mean of each dimension of embeddings (V, N, D), the mean over dimensions and views."""
    return z.mean(dim=1).square().mean()


def shape(z: Tensor, slices: Tensor) -> Tensor:
    """Sliced Wasserstein distance of standardised embeddings (V, N, D) to a standard Gaussian, squared.

    Along each slice the embeddings, sorted, are compared with the Gaussian's quantiles at 1 / (N + 1), ..., N / (N + 1).
    The deviation that standardises gets no gradient, so that the term says nothing about the scale.

    Args:
        z: The embeddings of all views.
        slices: Directions (D, M) of length 1.
    """
    n = z.shape[1]
    standard = (z - z.mean(dim=1, keepdim=True)) / deviation(z).detach().unsqueeze(1)
    quantiles = torch.special.ndtri(torch.arange(1, n + 1, device=z.device, dtype=z.dtype) / (n + 1))
    return ((standard @ slices).sort(dim=1).values - quantiles.unsqueeze(-1)).square().mean()


class VISReg(ssl_dc.Objective):
    """The objective ``visreg``: (1 - lambda) * invariance + lambda * (scale + shape + center), of any number of views.

    The invariance is the distance of the embeddings of each view, global or local, to the mean of the global views.
    Source: the authors' page (scale, shape) and code (center, the stop-gradient, the weights).

    Args:
        options: Widths, lambda, slices.
        feature_dim: Width of the features.
    """

    views: ClassVar[int | None] = None

    def __init__(self, options: VISRegOptions, feature_dim: int) -> None:
        super().__init__()
        self.options = options
        self.projector = projector(feature_dim, options.hidden_width, options.hidden_width, options.width)
        self.draws = SharedDraws()

    @property
    def weights(self) -> Mapping[str, float]:
        """1 - lambda of the invariance, and lambda of each other term."""
        of_regularization = dict.fromkeys(("scale", "shape", "center"), self.options.regularization)
        return {"invariance": 1 - self.options.regularization, **of_regularization}

    def forward(self, views: ssl_dc.EncodedViews) -> ssl_dc.ObjectiveOutput:
        """The terms of two or more views with features (N, feature_dim)."""
        embeddings = [self.projector(features) for features in views.features]
        with torch.autocast(embeddings[0].device.type, enabled=False):
            z = torch.stack([ssl_dc.gather_batch(each.float()) for each in embeddings])
            slices = self.draws.slices(self.options.width, self.options.slices).to(z)
            invariance = distance_to_mean(z, views.global_count)
            terms = {"invariance": invariance, "scale": scale(z), "shape": shape(z, slices), "center": center(z)}
        return ssl_dc.ObjectiveOutput(terms, embeddings)
