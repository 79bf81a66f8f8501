"""RankMe: the smooth rank of embeddings (Garrido, Balestriero, Najman and LeCun 2023, equation 1)."""

from __future__ import annotations

import numpy as np

from ssl_dc.evaluation.features import FeatureArray
from ssl_dc.evaluation.spectra import descending_eigenvalues, smooth_rank

EMBEDDINGS = 25_600
"""How many embeddings the paper takes."""


def rankme(features: FeatureArray) -> float:
    """The exponential of the entropy of the singular values, as shares of their sum. The features are not centred.

    Args:
        features: (n, d).

    Returns:
        From 1 to min(n, d). More is better; 0 if all features are 0.
    """
    x = features.astype(np.float64)
    gram = x @ x.T if len(x) < x.shape[1] else x.T @ x
    return smooth_rank(np.sqrt(descending_eigenvalues(gram)))
