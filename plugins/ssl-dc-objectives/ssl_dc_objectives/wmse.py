"""W-MSE (Ermolov et al. 2021): whitened embeddings of the views of an image are drawn together."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

import ssl_dc
from ssl_dc_objectives.draws import SharedDraws
from ssl_dc_objectives.heads import projector
from ssl_dc_objectives.options import WMSEOptions


def whiten(v: Tensor, shrinkage: float = 0.0) -> Tensor:
    """W (v - mean), with W^T W the inverse of the covariance: mean 0 and covariance 1 over the rows (N, D).

    W is the inverse of the Cholesky factor of the covariance (section 3 of the paper).

    Args:
        v: Embeddings, more than D of them.
        shrinkage: The covariance becomes (1 - shrinkage) * covariance + shrinkage * identity.

    Raises:
        torch.linalg.LinAlgError: If the covariance is singular.
    """
    centred = v - v.mean(dim=0)
    covariance = centred.T @ centred / (len(v) - 1)
    identity = torch.eye(v.shape[1], device=v.device, dtype=v.dtype)
    factor = torch.linalg.cholesky((1 - shrinkage) * covariance + shrinkage * identity)
    return torch.linalg.solve_triangular(factor, centred.T, upper=False).T


def distance(z1: Tensor, z2: Tensor) -> Tensor:
    """Squared distance of whitened embeddings (N, D) of length 1, the mean over rows: 2 - 2 cos (section 3)."""
    return 2 - 2 * F.cosine_similarity(z1, z2, dim=1).mean()


class WMSE(ssl_dc.Objective):
    """The objective ``wmse``: the distance of whitened embeddings, the mean over all pairs of views.

    Each view is whitened by itself, in sub-batches. The batch is divided at random, in the same way for all views
    (section 3, "Batch slicing").

    Args:
        options: Widths, size of a sub-batch, number of divisions, shrinkage.
        feature_dim: Width of the features.
    """

    views: ClassVar[int | None] = None

    def __init__(self, options: WMSEOptions, feature_dim: int) -> None:
        super().__init__()
        self.options = options
        self.least_batch = 2 * options.width
        self.projector = projector(feature_dim, options.hidden_width, options.width)
        self.draws = SharedDraws()

    @property
    def weights(self) -> Mapping[str, float]:
        """One term."""
        return {"distance": 1.0}

    def forward(self, views: ssl_dc.EncodedViews) -> ssl_dc.ObjectiveOutput:
        """The term of two or more views with features (N, feature_dim). The embeddings are not whitened.

        Raises:
            RunError: If the covariance of a sub-batch is singular.
        """
        embeddings = [self.projector(features) for features in views.features]
        with torch.autocast(embeddings[0].device.type, enabled=False):
            z = [ssl_dc.gather_batch(each.float()) for each in embeddings]
            losses = [self._of_division(z) for _ in range(self.options.partitions)]
            terms = {"distance": torch.stack(losses).mean()}
        return ssl_dc.ObjectiveOutput(terms, embeddings)

    def _of_division(self, embeddings: list[Tensor]) -> Tensor:
        """The loss of one random division into sub-batches."""
        n = len(embeddings[0])
        order = self.draws.permutation(n).to(embeddings[0].device)
        sub_batches = order.tensor_split(max(1, n // self.options.sub_batch))
        whitened = [torch.cat([self._whitened(z[rows]) for rows in sub_batches]) for z in embeddings]
        return torch.stack([distance(z1, z2) for z1, z2 in combinations(whitened, 2)]).mean()

    def _whitened(self, sub_batch: Tensor) -> Tensor:
        try:
            return whiten(sub_batch, self.options.shrinkage)
        except torch.linalg.LinAlgError as error:
            raise ssl_dc.RunError(
                f"objective wmse: the covariance of {len(sub_batch)} embeddings is singular, so they cannot be whitened;"
                " a larger objective.sub_batch, a smaller objective.width or an objective.shrinkage above 0 helps"
            ) from error
