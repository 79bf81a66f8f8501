"""Rounds a weight so that what it is multiplied with makes the errors small, not each weight by itself."""

from __future__ import annotations

import torch
from torch import Tensor

DAMPING = 0.01
"""Part of the mean second moment that is added to each, so that few samples do not decide alone."""
AT_ONCE = 64
"""Columns after which the errors are spread over all columns that follow."""


def compensated(numbers: Tensor, moments: Tensor, largest: int) -> Tensor:
    """Whole numbers whose products with vectors are near those of the given numbers.

    One column is rounded after the other. The columns that follow are then moved, so that they make up for the error as
    well as the moments allow. This is GPTQ (Frantar et al. 2023), after Optimal Brain Surgeon (Hassibi and Stork 1993).

    Args:
        numbers: (rows, columns) float64. The rows do not depend on each other.
        moments: The second moments of the vectors, (columns, columns) float64. If they are 0, each number is rounded to the
            nearest whole one.
        largest: The whole numbers lie from minus this to this.

    Returns:
        (rows, columns) float64.
    """
    order = moments.diagonal().argsort(descending=True)
    factor = _factor(moments[order][:, order])
    left = numbers[:, order].clone()
    whole = torch.empty_like(left)
    for first in range(0, left.shape[1], AT_ONCE):
        last = min(first + AT_ONCE, left.shape[1])
        errors = torch.empty(len(left), last - first, dtype=left.dtype)
        for column in range(first, last):
            whole[:, column] = left[:, column].round().clamp(-largest, largest)
            error = (left[:, column] - whole[:, column]) / factor[column, column]
            left[:, column:last] -= torch.outer(error, factor[column, column:last])
            errors[:, column - first] = error
        left[:, last:] -= errors @ factor[first:last, last:]
    return whole[:, order.argsort()]


def _factor(moments: Tensor) -> Tensor:
    """The upper Cholesky factor of the inverse of damped moments."""
    damping = DAMPING * float(moments.diagonal().mean())
    damped = moments + (damping or 1.0) * torch.eye(len(moments), dtype=moments.dtype)
    factor: Tensor = torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(damped)), upper=True)
    return factor
