"""What the label-free measures of representations share: spectra and their entropy."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

EPSILON = 1e-7
"""Is added to shares, so that their logarithm is finite, as in the papers of RankMe and LiDAR."""


def smooth_rank(values: Array) -> float:
    """The exponential of the entropy of values as shares of their sum: how many of them count.

    Args:
        values: (k,), at least 0.

    Returns:
        From about 1 to k; 0 if all values are 0.
    """
    total = values.sum()
    if total <= 0:
        return 0.0
    shares = values / total + EPSILON
    return float(np.exp(-(shares * np.log(shares)).sum()))


def descending_eigenvalues(matrix: Array) -> Array:
    """The eigenvalues of a symmetric matrix (d, d) with none below 0, the largest first."""
    return np.linalg.eigvalsh(matrix)[::-1].clip(min=0)
