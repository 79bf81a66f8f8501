"""Features of sets of images, with what they cost."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ssl_dc.config import resolve, uniform_layer
from ssl_dc.data.base import Splits
from ssl_dc.data.digits import ArrayImages
from ssl_dc.errors import DataError, RunError
from ssl_dc.evaluation.features import extract, extract_prepared, labels_of
from ssl_dc.evaluation.knn import score_knn
from ssl_dc.evaluation.linear import score_linear
from ssl_dc.evaluation.scores import extract_splits
from ssl_dc.model import Model
from ssl_dc.routes import Route

SETTINGS = {"backbone.width": 4, "data.image_size": 8, "objective.expander_width": 16, "training.workers": 0}


@pytest.fixture(scope="module")
def model() -> Model:
    return Model.untrained(resolve([uniform_layer(SETTINGS, "test")]).config)


def images(n: int, seed: int = 0) -> ArrayImages:
    rng = np.random.default_rng(seed)
    return ArrayImages(rng.integers(0, 255, (n, 8, 8, 3), dtype=np.uint8), rng.integers(0, 3, n))


def stacked(model: Model, some: ArrayImages) -> torch.Tensor:
    return torch.stack([model.transform(some.image(i)) for i in range(len(some))])


def test_features_are_the_models_in_the_order_of_the_images(model: Model) -> None:
    some = images(21)
    found = extract(model, some, model.routes, keep_masks=True)
    assert set(found) == {Route.DENSE, Route.GATED}
    x = stacked(model, some)
    gated = model.gated(x)
    assert np.allclose(found[Route.DENSE].features, model.dense(x).numpy(), atol=1e-5)
    assert np.allclose(found[Route.GATED].features, gated.features.numpy(), atol=1e-5)
    assert np.array_equal(found[Route.GATED].macs, gated.macs.numpy())
    for site, mask in gated.masks.items():
        assert np.array_equal(found[Route.GATED].masks[site], mask.bool().numpy())
    assert np.array_equal(found[Route.DENSE].macs, np.full(21, model.cost.dense_macs))
    assert found[Route.DENSE].masks == {}
    for route in found.values():
        assert route.features.dtype == np.float32
        assert route.features.shape == (21, model.feature_dim)


@pytest.mark.parametrize(("batch_size", "workers"), [(1, 0), (4, 0), (21, 0), (8, 1)])
def test_batches_and_workers_do_not_matter(model: Model, batch_size: int, workers: int) -> None:
    some = images(21)
    whole = extract(model, some, model.routes)
    parts = extract(model, some, model.routes, batch_size=batch_size, workers=workers)
    for route in model.routes:
        assert np.allclose(whole[route].features, parts[route].features, atol=1e-5)
        assert np.array_equal(whole[route].macs, parts[route].macs)


def test_taking_features_changes_nothing_in_the_model(model: Model) -> None:
    before = {name: value.clone() for name, value in model.encoder.state_dict().items()}
    extract(model, images(16), model.routes)
    assert all(torch.equal(before[name], value) for name, value in model.encoder.state_dict().items())
    assert not model.encoder.training


def test_labels_that_are_not_there_are_asked_for_in_words() -> None:
    with pytest.raises(DataError, match="labels"):
        labels_of(ArrayImages(np.zeros((2, 8, 8, 3), np.uint8), None))


@pytest.fixture(scope="module")
def splits() -> Splits:
    train = images(40)
    return Splits(train, train, images(24, seed=1), ("a", "b", "c"))


def test_knn_of_a_set_on_itself_is_perfect_on_both_routes(model: Model, splits: Splits) -> None:
    itself = splits._replace(test=splits.evaluation_train)
    evaluation = score_knn(extract_splits(model, itself))
    assert {score.top1 for score in evaluation.routes.values()} == {100.0}
    assert {score.std for score in evaluation.routes.values()} == {None}
    assert (evaluation.protocol, evaluation.train_images, evaluation.test_images) == ("knn", 40, 40)


def test_cost_is_of_the_test_images(model: Model, splits: Splits) -> None:
    sets = extract_splits(model, splits)
    for evaluation in (score_knn(sets), score_linear(sets, seeds=1, epochs=1)):
        gated, dense = evaluation.routes[Route.GATED], evaluation.routes[Route.DENSE]
        assert gated.macs == pytest.approx(float(model.gated(stacked(model, images(24, seed=1))).macs.mean()))
        assert gated.ratio == pytest.approx(gated.macs / model.cost.dense_macs)
        assert (dense.macs, dense.ratio) == (model.cost.dense_macs, 1)
        assert evaluation.test_images == 24


def test_a_single_seed_has_no_deviation(model: Model, splits: Splits) -> None:
    sets = extract_splits(model, splits)
    assert score_linear(sets, seeds=1, epochs=1).routes[Route.DENSE].std is None
    assert score_linear(sets, seeds=2, epochs=1).routes[Route.DENSE].std is not None


def test_routes_can_be_chosen(model: Model, splits: Splits) -> None:
    assert set(score_knn(extract_splits(model, splits, routes=[Route.GATED])).routes) == {Route.GATED}


def test_features_that_are_not_finite_are_refused() -> None:
    config = resolve([uniform_layer({"data.name": "digits", "backbone.width": 8, "budget.target": 0.9}, "test")]).config
    model = Model.untrained(config)
    with torch.no_grad():
        next(model.encoder.parameters()).fill_(torch.nan)
    images = torch.zeros(3, 3, config.data.image_size, config.data.image_size)
    with pytest.raises(RunError, match="features of the dense route are not finite, for 3 of 3 images"):
        extract_prepared(model, images, [Route.DENSE])
