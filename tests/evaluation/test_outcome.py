"""What a run reports at its end, with and without labels."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import ssl_dc
from ssl_dc.assemble import build_data_set
from ssl_dc.config import resolve, uniform_layer
from ssl_dc.data.subsets import open_splits
from ssl_dc.errors import DataError
from ssl_dc.evaluation.knn import score_knn
from ssl_dc.evaluation.outcome import outcome
from ssl_dc.evaluation.scores import extract_splits
from ssl_dc.model import Model
from ssl_dc.routes import Route

TINY: dict[str, Any] = {
    "data.image_size": 8,
    "backbone.width": 4,
    "backbone.stem": "cifar",
    "objective.expander_width": 16,
    "training.batch_size": 16,
    "training.epochs": 1,
    "training.workers": 0,
}
DIGITS = {**TINY, "data.limit": 32, "data.test_limit": 40}


@pytest.fixture(scope="module")
def unlabelled(tmp_path_factory: pytest.TempPathFactory) -> ssl_dc.Run:
    """A run on a folder of images without classes."""
    folder = tmp_path_factory.mktemp("outcome")
    (folder / "data" / "train").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number in range(40):
        pixels = rng.integers(0, 255, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "data" / "train" / f"{number}.png")
    return ssl_dc.train({**TINY, "data.name": "folder", "data.root": str(folder / "data")}, output=folder / "run")


def test_untrained_accuracy_is_that_of_the_network_training_started_from(tmp_path: Path) -> None:
    run = ssl_dc.train(DIGITS, output=tmp_path / "run")
    splits = open_splits(build_data_set(run.model.config))
    before = score_knn(extract_splits(Model.untrained(run.model.config), splits))
    after = score_knn(extract_splits(run.model, splits))
    for route in (Route.DENSE, Route.GATED):
        reached = run.outcome.routes[route]
        assert reached.knn1 == after.routes[route].top1
        assert reached.knn1_untrained == before.routes[route].top1
        assert (reached.macs, reached.ratio) == (after.routes[route].macs, after.routes[route].ratio)
    assert run.outcome.measured_on == "40 held-out images"
    assert json.loads((run.folder / "result.json").read_text()) == run.outcome.as_json()


def test_an_untrained_network_reaches_what_it_reaches_untrained() -> None:
    config = resolve([uniform_layer(DIGITS, "test")]).config
    found = outcome(config, Model.untrained(config), open_splits(build_data_set(config)))
    for reached in found.routes.values():
        assert reached.knn1 == reached.knn1_untrained


def test_without_labels_there_is_a_cost_but_no_accuracy(unlabelled: ssl_dc.Run) -> None:
    found = unlabelled.outcome
    assert set(found.routes) == {Route.DENSE, Route.GATED}
    for reached in found.routes.values():
        assert reached.knn1 is None
        assert reached.knn1_untrained is None
    assert found.routes[Route.DENSE].ratio == 1
    assert found.routes[Route.GATED].ratio == pytest.approx(0.3, abs=0.02)
    assert found.routes[Route.GATED].macs == pytest.approx(found.routes[Route.GATED].ratio * found.dense_macs)
    assert found.measured_on.startswith("training images")
    json.dumps(found.as_json(), allow_nan=False)


def test_without_labels_the_run_can_be_loaded(unlabelled: ssl_dc.Run) -> None:
    assert ssl_dc.load(unlabelled.folder).feature_dim == 32


@pytest.mark.parametrize("protocol", ["knn", "linear"])
def test_without_labels_an_evaluation_says_what_it_lacks(unlabelled: ssl_dc.Run, protocol: Any) -> None:
    with pytest.raises(DataError, match="labels"):
        ssl_dc.evaluate(unlabelled.folder, protocol)
