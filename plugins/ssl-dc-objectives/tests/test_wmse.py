"""W-MSE against a plain statement of the paper's equations, and what whitening does."""

from __future__ import annotations

import copy
import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from stated import SMALL, TINY, Array, assert_gradients, differences, embeddings, on_embeddings, run, tensors

import ssl_dc
from ssl_dc.testing import conformance
from ssl_dc_objectives.options import WMSEOptions
from ssl_dc_objectives.wmse import WMSE, whiten

test_wmse = conformance("objective", "wmse", settings=SMALL["wmse"])
test_wmse_with_its_defaults = conformance("objective", "wmse")


def plain_whitened(view: Array, shrinkage: float = 0.0) -> Array:
    """W (v - mean) with W the inverse of the Cholesky factor, which is built entry by entry."""
    rows, columns = view.shape
    centred = view - sum(view) / rows
    covariance = (1 - shrinkage) * sum(np.outer(v, v) for v in centred) / (rows - 1) + shrinkage * np.eye(columns)
    factor = np.zeros((columns, columns))
    for i in range(columns):
        for j in range(i + 1):
            rest = covariance[i, j] - sum(factor[i, k] * factor[j, k] for k in range(j))
            factor[i, j] = np.sqrt(rest) if i == j else rest / factor[j, j]
    return np.array([np.linalg.inv(factor) @ v for v in centred])


def plain_distance(a: Array, b: Array) -> float:
    """|| a / |a| - b / |b| ||^2, the mean over images."""
    rows = [np.sum((u / np.sqrt(u @ u) - v / np.sqrt(v @ v)) ** 2) for u, v in zip(a, b, strict=True)]
    return float(np.mean(rows))


def plain_loss(views: list[Array], parts: list[Array], shrinkage: float = 0.0) -> float:
    """All pairs of views; ``parts`` are the numbers of the images of each sub-batch."""
    whitened = [np.concatenate([plain_whitened(view[part], shrinkage) for part in parts]) for view in views]
    return float(np.mean([plain_distance(a, b) for a, b in itertools.combinations(whitened, 2)]))


def small(**options: float) -> WMSE:
    return on_embeddings(WMSE(WMSEOptions.model_validate({"width": 3, "sub_batch": 6, **options}), feature_dim=3))


def parts_of(objective: WMSE, rows: int, count: int) -> list[Array]:
    """The sub-batches that the objective will draw next."""
    return np.array_split(copy.deepcopy(objective.draws).permutation(rows).numpy(), count)


@pytest.mark.parametrize(("rows", "count"), [(6, 1), (5, 1), (12, 2), (14, 2)])
@pytest.mark.parametrize("views", [2, 4])
def test_value_is_that_of_the_equations(rows: int, count: int, views: int) -> None:
    objective, some = small(), embeddings(seed=rows, rows=rows, columns=3, views=views)
    expected = plain_loss(some, parts_of(objective, rows, count))
    (name, term), *more = run(objective, *tensors(some)).terms.items()
    assert (name, more) == ("distance", [])
    assert term.item() == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("shrinkage", [0.0, 0.2])
def test_gradient_is_that_of_the_equations(shrinkage: float) -> None:
    objective, some = small(shrinkage=shrinkage), embeddings(seed=3, rows=12, columns=3)
    parts, leaves = parts_of(objective, 12, 2), tensors(some)
    run(objective, *leaves).terms["distance"].backward()
    assert_gradients(leaves, differences(lambda moved: plain_loss(moved, parts, shrinkage), some))


def test_the_loss_is_the_mean_over_several_divisions() -> None:
    some = embeddings(seed=1, rows=12, columns=3)
    several, one = small(partitions=3), small()
    one.draws = copy.deepcopy(several.draws)
    each = [run(one, *tensors(some)).terms["distance"].item() for _ in range(3)]
    assert max(each) - min(each) > 1e-3
    assert run(several, *tensors(some)).terms["distance"].item() == pytest.approx(np.mean(each), rel=1e-5)


def test_whitened_embeddings_have_mean_0_and_covariance_1() -> None:
    (view,) = embeddings(seed=2, rows=20, columns=5, views=1)
    whitened = whiten(torch.from_numpy(view))
    np.testing.assert_allclose(whitened.mean(dim=0).numpy(), 0, atol=1e-9)
    np.testing.assert_allclose(torch.cov(whitened.T).numpy(), np.eye(5), atol=1e-9)


def test_collapsed_embeddings_are_refused_with_what_helps() -> None:
    same = torch.ones(6, 3)
    with pytest.raises(ssl_dc.RunError, match=r"singular.*objective\.shrinkage"):
        run(small(), same, same)
    assert torch.isfinite(run(small(shrinkage=0.1), same, same).terms["distance"])


def test_a_sub_batch_that_is_too_small_is_refused() -> None:
    with pytest.raises(ValueError, match="sub_batch 100 must be at least twice the width, 64"):
        ssl_dc.RunConfig.model_validate({"objective": {"name": "wmse", "sub_batch": 100}})


def test_a_batch_that_is_too_small_is_refused_in_one_sentence(tmp_path: Path) -> None:
    needs = r"takes 128 images or more at once, and gets 8: raise training\.batch_size"
    with pytest.raises(ssl_dc.ConfigError, match=needs):
        ssl_dc.train({**TINY, "objective": "wmse"}, output=tmp_path / "run")


def test_the_trial_step_of_a_plan_takes_as_many_images_as_are_needed() -> None:
    plan = ssl_dc.plan({**TINY, "objective": "wmse", "data.limit": 128, "training.batch_size": 128})
    assert plan.needs is not None
    assert plan.needs.parameters > 64 * 1024
