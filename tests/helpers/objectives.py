"""The built-in objectives by their equations (method section 2), one number at a time in float64, and embeddings to try."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ssl_dc.objectives.base import EncodedViews, Objective, ObjectiveOutput
from ssl_dc.routes import Route

T = TypeVar("T", bound=Objective)
Array = NDArray[np.float64]


def covariance_entry(z: Array, j: int, k: int) -> float:
    """Entry (j, k) of the unbiased covariance of an embedding."""
    rows = z.shape[0]
    mean_j = sum(z[i, j] for i in range(rows)) / rows
    mean_k = sum(z[i, k] for i in range(rows)) / rows
    return float(sum((z[i, j] - mean_j) * (z[i, k] - mean_k) for i in range(rows)) / (rows - 1))


def vicreg_terms(z1: Array, z2: Array) -> dict[str, float]:
    """VICReg's three terms; variance and covariance are summed over the two views."""
    rows, columns = z1.shape

    def variance(z: Array) -> float:
        return sum(max(0.0, 1 - math.sqrt(covariance_entry(z, j, j) + 1e-4)) for j in range(columns)) / columns

    def covariance(z: Array) -> float:
        pairs = [(j, k) for j in range(columns) for k in range(columns) if j != k]
        return sum(covariance_entry(z, j, k) ** 2 for j, k in pairs) / columns

    squares = sum((z1[i, j] - z2[i, j]) ** 2 for i in range(rows) for j in range(columns))
    return {
        "invariance": float(squares / (rows * columns)),
        "variance": variance(z1) + variance(z2),
        "covariance": covariance(z1) + covariance(z2),
    }


def standardised(z: Array) -> Array:
    """Each column less its mean, over the root of its biased variance plus 1e-5."""
    rows, columns = z.shape
    result = np.zeros_like(z)
    for j in range(columns):
        mean = sum(z[i, j] for i in range(rows)) / rows
        biased = sum((z[i, j] - mean) ** 2 for i in range(rows)) / rows
        for i in range(rows):
            result[i, j] = (z[i, j] - mean) / math.sqrt(biased + 1e-5)
    return result


def barlow_twins_terms(z1: Array, z2: Array) -> dict[str, float]:
    """The two terms of Barlow Twins, without weights."""
    rows, columns = z1.shape
    s1, s2 = standardised(z1), standardised(z2)
    terms = {"on_diagonal": 0.0, "off_diagonal": 0.0}
    for i in range(columns):
        for j in range(columns):
            entry = float(sum(s1[n, i] * s2[n, j] for n in range(rows)) / rows)
            if i == j:
                terms["on_diagonal"] += (entry - 1) ** 2
            else:
                terms["off_diagonal"] += entry**2
    return terms


def central_differences(loss: Callable[[Array, Array], float], z1: Array, z2: Array) -> tuple[Array, Array]:
    """The gradient of a loss of two embeddings, in both."""
    gradients = []
    step = 1e-6 * max(1.0, float(np.abs(z1).max()))
    for view in range(2):
        gradient = np.zeros_like(z1)
        for index in np.ndindex(*z1.shape):
            values = []
            for sign in (1.0, -1.0):
                moved = [z1.copy(), z2.copy()]
                moved[view][index] += sign * step
                values.append(loss(moved[0], moved[1]))
            gradient[index] = (values[0] - values[1]) / (2 * step)
        gradients.append(gradient)
    return gradients[0], gradients[1]


def embeddings(seed: int, rows: int, columns: int, scale: float) -> tuple[Array, Array]:
    """Two correlated, badly centred embeddings whose dimensions differ in spread."""
    generator = np.random.default_rng(seed)
    mixing = generator.normal(size=(columns, columns))
    z1 = generator.normal(size=(rows, columns)) @ mixing + generator.normal(size=columns)
    z2 = z1 + 0.5 * generator.normal(size=(rows, columns))
    return scale * z1, scale * z2


def on_embeddings(objective: T) -> T:
    """The objective with an expander that changes nothing, so that features are embeddings."""
    objective.expander = nn.Identity()
    return objective


def run(objective: Objective, z1: Tensor, z2: Tensor) -> ObjectiveOutput:
    """The output of an objective for two views with these features."""
    output: ObjectiveOutput = objective(EncodedViews((z1, z2), (z1, z2), (Route.GATED, Route.DENSE)))
    return output


def weighted_sum(objective: Objective, output: ObjectiveOutput) -> Tensor:
    """The loss."""
    assert set(output.terms) == set(objective.weights)
    return torch.stack([objective.weights[name] * term for name, term in output.terms.items()]).sum()
