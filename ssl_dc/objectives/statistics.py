"""Statistics of embeddings, for objectives and for the metrics of training."""

from __future__ import annotations

import torch
from torch import Tensor

from ssl_dc.devices import in_float64


def off_diagonal(matrix: Tensor) -> Tensor:
    """The D * (D - 1) off-diagonal entries of a matrix (D, D), as a vector."""
    d = matrix.shape[0]
    return matrix.flatten()[:-1].view(d - 1, d + 1)[:, 1:].flatten()


@torch.no_grad()
def mean_std(z: Tensor) -> Tensor:
    """Mean over dimensions of the standard deviation of an embedding (N, D). It is near 0 after a collapse."""
    return z.detach().float().std(dim=0).mean()


@torch.no_grad()
def effective_rank(z: Tensor) -> Tensor:
    """Effective rank of a centred embedding (N, D): the exponential of the entropy of its normalised singular values.

    It lies between 1 (collapsed to a line) and min(N - 1, D). Source: Roy and Vetterli 2007.
    """
    return effective_rank_of(gram_matrix(z))


@torch.no_grad()
def gram_matrix(z: Tensor) -> Tensor:
    """The products of the rows, or of the columns if these are fewer, of a centred embedding (N, D), in float64.

    Its eigenvalues are the squared singular values of the centred embedding.
    """
    centred = in_float64(z.detach())
    centred = centred - centred.mean(dim=0)
    n, d = centred.shape
    return centred @ centred.T if n <= d else centred.T @ centred


@torch.no_grad()
def effective_rank_of(gram: Tensor) -> Tensor:
    """:func:`effective_rank` of an embedding with this :func:`gram_matrix`. A GPU is waited for."""
    singular = torch.linalg.eigvalsh(gram).clamp_min(0).sqrt()
    share = singular / singular.sum().clamp_min(1e-12)
    return torch.exp(torch.special.entr(share).sum()).float()
