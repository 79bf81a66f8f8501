"""LeJEPA with SIGReg (Balestriero and LeCun 2025): views agree, and their embeddings are drawn to a standard Gaussian."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

import ssl_dc
from ssl_dc_objectives.agreement import distance_to_mean
from ssl_dc_objectives.draws import SharedDraws
from ssl_dc_objectives.heads import projector
from ssl_dc_objectives.options import SIGRegOptions


def epps_pulley(samples: Tensor, points: int, reach: float) -> Tensor:
    """The Epps-Pulley statistic of each column of samples (N, M): how far they are from a standard Gaussian.

    T = N * integral of |phi_N(t) - phi(t)|^2 phi(t) dt over [-reach, reach], with phi_N(t) = mean over n of exp(i t x_n),
    the empirical characteristic function, and phi(t) = exp(-t^2 / 2), both that of the Gaussian and the window
    (section 4 and algorithm 1 of the paper). The integral is taken by the trapezoidal rule. The integrand is even, so half
    of the points are enough.

    Args:
        samples: One sample of N numbers in each column.
        points: Points of the rule in the whole interval, an odd number.
        reach: Half the length of the interval, above 0.

    Returns:
        (M,), each at least 0.
    """
    t = torch.linspace(0, reach, points // 2 + 1, device=samples.device, dtype=samples.dtype)
    gaussian = torch.exp(-t.square() / 2)
    angles = samples.unsqueeze(-1) * t
    error = (angles.cos().mean(dim=0) - gaussian).square() + angles.sin().mean(dim=0).square()
    return len(samples) * 2 * torch.trapezoid(error * gaussian, t, dim=-1)


class SIGReg(ssl_dc.Objective):
    """The objective ``sigreg``: (1 - lambda) * prediction + lambda * SIGReg, of any number of views.

    The prediction is the distance of the embeddings of each view, global or local, to the mean of the global views.
    SIGReg is the mean, over the views and over random directions ("slices"), of the Epps-Pulley statistic of the embeddings
    along a direction (section 4 of the paper; algorithm 2 is the whole loss).

    Args:
        options: Widths, lambda, slices, quadrature.
        feature_dim: Width of the features.
    """

    views: ClassVar[int | None] = None

    def __init__(self, options: SIGRegOptions, feature_dim: int) -> None:
        super().__init__()
        self.options = options
        self.projector = projector(feature_dim, options.hidden_width, options.hidden_width, options.width)
        self.draws = SharedDraws()

    @property
    def weights(self) -> Mapping[str, float]:
        """1 - lambda and lambda."""
        return {"prediction": 1 - self.options.regularization, "sigreg": self.options.regularization}

    def forward(self, views: ssl_dc.EncodedViews) -> ssl_dc.ObjectiveOutput:
        """The terms of two or more views with features (N, feature_dim)."""
        options = self.options
        embeddings = [self.projector(features) for features in views.features]
        with torch.autocast(embeddings[0].device.type, enabled=False):
            z = torch.stack([ssl_dc.gather_batch(each.float()) for each in embeddings])
            slices = self.draws.slices(options.width, options.slices).to(z)
            statistics = [epps_pulley(each @ slices, options.points, options.reach) for each in z]
            terms = {"prediction": distance_to_mean(z, views.global_count), "sigreg": torch.stack(statistics).mean()}
        return ssl_dc.ObjectiveOutput(terms, embeddings)
