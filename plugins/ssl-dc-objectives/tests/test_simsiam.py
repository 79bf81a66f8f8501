"""SimSiam against a plain statement of the paper's equations."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from stated import SMALL, Array, assert_gradients, differences, embeddings, run, tensors
from torch import nn

from ssl_dc.testing import conformance
from ssl_dc_objectives.options import SimSiamOptions
from ssl_dc_objectives.simsiam import SimSiam

test_simsiam = conformance("objective", "simsiam", settings=SMALL["simsiam"])

MIXING = np.random.default_rng(7).normal(size=(4, 4))
"""What the predictor multiplies projections by in these tests."""


def linear_predictor() -> SimSiam:
    """The objective whose projector changes nothing, and whose predictor is a linear map."""
    objective = SimSiam(SimSiamOptions(width=4), feature_dim=4)
    objective.projector = nn.Identity()  # type: ignore[assignment]
    objective.predictor = nn.Linear(4, 4, bias=False, dtype=torch.float64)  # type: ignore[assignment]
    with torch.no_grad():
        objective.predictor.weight.copy_(torch.from_numpy(MIXING.T))
    return objective


def cosine(u: Array, v: Array) -> float:
    return float(u @ v) / math.sqrt(float(u @ u) * float(v @ v))


def plain_loss(projections: list[Array], targets: list[Array]) -> float:
    """Equation 4, image by image: -(cos(p1, z2) + cos(p2, z1)) / 2, with p = z MIXING."""
    (z1, z2), (t1, t2) = projections, targets
    rows = [-cosine(a @ MIXING, d) / 2 - cosine(b @ MIXING, c) / 2 for a, b, c, d in zip(z1, z2, t1, t2, strict=True)]
    return sum(rows) / len(rows)


@pytest.mark.parametrize("seed", range(3))
def test_value_and_gradient_are_those_of_the_equation_with_the_targets_held_still(seed: int) -> None:
    views = embeddings(seed)
    leaves = tensors(views)
    (name, term), *more = run(linear_predictor(), *leaves).terms.items()
    assert (name, more) == ("similarity", [])
    assert term.item() == pytest.approx(plain_loss(views, views), rel=1e-5)
    term.backward()
    assert_gradients(leaves, differences(lambda moved: plain_loss(moved, views), views))


def test_the_stop_gradient_shows() -> None:
    views = embeddings(seed=1)
    still, moving = (
        differences(loss, views)
        for loss in (lambda moved: plain_loss(moved, views), lambda moved: plain_loss(moved, moved))
    )
    assert float(np.abs(still[0] - moving[0]).max()) > 0.01


def test_heads_are_those_of_the_paper() -> None:
    objective = SimSiam(SimSiamOptions(width=12, hidden_width=3), feature_dim=20)
    shapes = {name: tuple(p.shape) for name, p in objective.named_parameters() if p.ndim == 2}
    assert list(shapes.values()) == [(12, 20), (12, 12), (12, 12), (3, 12), (12, 3)]
    features = [torch.randn(16, 20), torch.randn(16, 20)]
    output = run(objective, *features)
    lengths = torch.stack([z.norm(dim=1) for z in output.embeddings])
    torch.testing.assert_close(lengths, torch.ones(2, 16))
    projection = objective.projector(features[0])
    torch.testing.assert_close(projection.mean(dim=0), torch.zeros(12), atol=1e-5, rtol=0)
    torch.testing.assert_close(projection.std(dim=0, unbiased=False), torch.ones(12), atol=1e-2, rtol=0)


def test_embeddings_that_do_not_collapse_have_the_deviation_that_the_paper_names() -> None:
    torch.manual_seed(0)
    objective = SimSiam(SimSiamOptions(width=64, hidden_width=8), feature_dim=32)
    spread = run(objective, torch.randn(256, 32), torch.randn(256, 32)).embeddings[0].std(dim=0).mean()
    assert spread.item() == pytest.approx(1 / math.sqrt(64), rel=0.05)
