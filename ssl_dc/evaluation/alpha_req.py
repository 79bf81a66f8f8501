"""alpha-ReQ: how fast the spectrum of features decays (Agrawal, Mondal, Ghosh and Richards 2022)."""

from __future__ import annotations

import numpy as np

from ssl_dc.evaluation.features import FeatureArray
from ssl_dc.evaluation.spectra import descending_eigenvalues

FIRST, LAST = 11, 100
"""The eigenvalues that the power law is fitted to, by their numbers from 1, as in the code of the paper. All of them are
taken if there are fewer than ``FEWEST`` in this range."""
FEWEST = 10


def alpha_req(features: FeatureArray) -> float:
    """The exponent alpha of the power law i ** -alpha that the eigenvalues of the covariance follow.

    It is the slope of the least squares fit of log eigenvalue against log number, weighted by 1 / number, as in the code of
    the paper. Eigenvalues that are 0 but for rounding are left out.

    Args:
        features: (n, d), n at least 3.

    Returns:
        Near 1 for good representations, says the paper; larger where few directions hold most of the variance. NaN if fewer
        than two eigenvalues are above 0.
    """
    x = features.astype(np.float64)
    x = x - x.mean(axis=0)
    scatter = x @ x.T if len(x) < x.shape[1] else x.T @ x
    values = descending_eigenvalues(scatter / (len(x) - 1))
    values = values[values > values[0] * 1e-12]
    numbers = np.arange(1, len(values) + 1)
    inside = (numbers >= FIRST) & (numbers <= LAST)
    if inside.sum() >= FEWEST:
        values, numbers = values[inside], numbers[inside]
    if len(values) < 2:
        return float("nan")
    weights, x_log, y_log = 1 / numbers, np.log(numbers), np.log(values)
    x_mean, y_mean = (np.average(each, weights=weights) for each in (x_log, y_log))
    slope = (weights * (x_log - x_mean) * (y_log - y_mean)).sum() / (weights * (x_log - x_mean) ** 2).sum()
    return float(-slope)
