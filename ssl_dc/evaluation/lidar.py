"""LiDAR: the smooth rank of what tells images apart (Thilak et al. 2023, section 4)."""

from __future__ import annotations

import numpy as np

from ssl_dc.evaluation.features import FeatureArray
from ssl_dc.evaluation.spectra import Array, smooth_rank

IMAGES = 1000
"""How many images are looked at, as in the paper."""
VIEWS = 10
"""How many views there are of each."""
DELTA = 1e-4
"""Is added to the diagonal of the scatter within images, as in the paper, so that it can be inverted."""


def lidar(features: FeatureArray) -> float:
    """The smooth rank of the linear discriminant analysis in which each image is a class, and its views are its members.

    Args:
        features: (n, q, d): of n images, q views each; both at least 2.

    Returns:
        From about 1 to min(n - 1, d). More is better.
    """
    x = features.astype(np.float64)
    images, views, dim = x.shape
    means = x.mean(axis=1)
    between = means - means.mean(axis=0)
    within = (x - means[:, None]).reshape(images * views, dim)
    scatter_between = between.T @ between / (images - 1)
    scatter_within = within.T @ within / (images * views) + DELTA * np.eye(dim)
    whitening = _inverse_root(scatter_within)
    return smooth_rank(np.linalg.eigvalsh(whitening @ scatter_between @ whitening).clip(min=0))


def _inverse_root(matrix: Array) -> Array:
    """The inverse square root of a symmetric matrix whose eigenvalues are above 0."""
    values, vectors = np.linalg.eigh(matrix)
    root: Array = (vectors / np.sqrt(values)) @ vectors.T
    return root
