"""What the tests of the objectives share: embeddings to try, gradients by differences, the objectives made small."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

import ssl_dc

T = TypeVar("T", bound=ssl_dc.Objective)
Array = NDArray[np.float64]

SMALL: dict[str, dict[str, Any]] = {
    "dino": {"width": 6, "hidden_width": 8, "bottleneck_width": 4},
    "sigreg": {"width": 4, "hidden_width": 8, "slices": 16},
    "simsiam": {"width": 8, "hidden_width": 4},
    "visreg": {"width": 4, "hidden_width": 8, "slices": 16},
    "wmse": {"width": 4, "hidden_width": 8, "sub_batch": 8},
}
"""Options that make each objective small enough for the kit's batches of 8."""

TINY: dict[str, Any] = {
    "budget.target": 0.3,
    "backbone.width": 4,
    "data.limit": 16,
    "data.test_limit": 8,
    "data.image_size": 8,
    "training.batch_size": 8,
    "training.epochs": 1,
    "training.workers": 0,
}
"""Settings of a training of two steps."""


def on_embeddings(objective: T) -> T:
    """The objective with a projector that changes nothing, so that features are embeddings."""
    objective.projector = nn.Identity()
    return objective


def slices_of(objective: Any) -> Array:
    """The directions (D, M) that an objective will draw next."""
    drawn = copy.deepcopy(objective.draws).slices(objective.options.width, objective.options.slices)
    return np.asarray(drawn.double().numpy())


def run(objective: ssl_dc.Objective, *features: Tensor, local_count: int = 0) -> ssl_dc.ObjectiveOutput:
    """The output of an objective for views with these features, gated and dense in turn; the last ones may be local."""
    routes = [ssl_dc.Route.DENSE if number % 2 else ssl_dc.Route.GATED for number in range(len(features))]
    sides = [12] * (len(features) - local_count) + [8] * local_count
    images = [torch.zeros(len(rows), 3, side, side) for rows, side in zip(features, sides, strict=True)]
    output: ssl_dc.ObjectiveOutput = objective(ssl_dc.EncodedViews(images, features, routes))
    return output


def embeddings(seed: int, rows: int = 6, columns: int = 4, views: int = 2) -> list[Array]:
    """Correlated, badly centred embeddings of several views, whose dimensions differ in spread."""
    generator = np.random.default_rng(seed)
    first = generator.normal(size=(rows, columns)) @ generator.normal(size=(columns, columns)) + generator.normal(
        size=columns
    )
    return [first, *(first + 0.5 * generator.normal(size=first.shape) for _ in range(views - 1))]


def tensors(views: Sequence[Array]) -> list[Tensor]:
    """Leaves that take gradients."""
    return [torch.from_numpy(view).requires_grad_() for view in views]


def differences(loss: Callable[[list[Array]], float], views: Sequence[Array], step: float = 1e-6) -> list[Array]:
    """The gradient of a loss of several arrays in each of them, by central differences."""
    gradients = []
    for number, view in enumerate(views):
        gradient = np.zeros_like(view)
        for index in np.ndindex(*view.shape):
            values = []
            for sign in (1.0, -1.0):
                moved = [each.copy() for each in views]
                moved[number][index] += sign * step
                values.append(loss(moved))
            gradient[index] = (values[0] - values[1]) / (2 * step)
        gradients.append(gradient)
    return gradients


def assert_gradients(leaves: Sequence[Tensor], expected: Sequence[Array]) -> None:
    """The leaves have these gradients, to the precision of float32."""
    largest = max(float(np.abs(gradient).max()) for gradient in expected)
    assert largest > 1e-4
    for leaf, gradient in zip(leaves, expected, strict=True):
        assert leaf.grad is not None
        np.testing.assert_allclose(leaf.grad.numpy(), gradient, rtol=1e-3, atol=1e-4 * largest)
