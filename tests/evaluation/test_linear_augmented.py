"""Linear evaluation on augmented crops: what changes from epoch to epoch, and what never does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch import Tensor
from torch.utils.data import DataLoader

import ssl_dc
from helpers.plain_linear import PlainClassifier
from ssl_dc.cli import main
from ssl_dc.config import resolve, uniform_layer
from ssl_dc.data.base import Splits
from ssl_dc.data.digits import ArrayImages
from ssl_dc.errors import ConfigError, DataError
from ssl_dc.evaluation import linear
from ssl_dc.evaluation.crops import Crops
from ssl_dc.evaluation.features import extract, extract_prepared
from ssl_dc.evaluation.linear import score_linear_augmented
from ssl_dc.model import Model
from ssl_dc.routes import Route
from ssl_dc.run_folder import RunFolder

SETTINGS = {
    "backbone.width": 4,
    "data.image_size": 8,
    "data.limit": 64,
    "data.test_limit": 40,
    "objective.expander_width": 16,
    "training.workers": 0,
}
MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)


@pytest.fixture(scope="module")
def model() -> Model:
    return Model.untrained(resolve([uniform_layer(SETTINGS, "test")]).config)


def images(n: int = 24, seed: int = 0, side: int = 10) -> ArrayImages:
    rng = np.random.default_rng(seed)
    return ArrayImages(rng.integers(0, 255, (n, side, side, 3), dtype=np.uint8), np.arange(n) % 3)


def splits() -> Splits:
    train = images()
    return Splits(train, train, images(12, seed=1), ("a", "b", "c"))


def all_of(crops: Crops) -> Tensor:
    return torch.stack([crops[index] for index in range(len(crops))])


def test_crops_are_a_function_of_seed_epoch_and_number() -> None:
    crops = Crops(images(), 8, MEAN, STD, seed=1)
    first = all_of(crops.of_epoch(3))
    assert first.shape == (24, 3, 8, 8)
    assert torch.equal(first, all_of(Crops(images(), 8, MEAN, STD, seed=1, epoch=3)))
    torch.manual_seed(99)
    assert torch.equal(first[7], crops.of_epoch(3)[7])
    loader = DataLoader(crops.of_epoch(3), batch_size=5, num_workers=2)  # type: ignore[var-annotated]
    assert torch.equal(first, torch.cat(list(loader)))
    for other in (crops.of_epoch(4), Crops(images(), 8, MEAN, STD, seed=2, epoch=3)):
        assert not any(torch.equal(a, b) for a, b in zip(first, all_of(other), strict=True))


def test_equal_images_get_crops_of_their_own() -> None:
    same = ArrayImages(np.repeat(images(1)._pixels, 6, axis=0), np.zeros(6, np.int64))
    crops = all_of(Crops(same, 8, MEAN, STD))
    assert len(torch.unique(crops, dim=0)) == 6


def test_drawing_crops_leaves_the_callers_chances_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    all_of(Crops(images(), 8, MEAN, STD))
    assert torch.equal(torch.rand(3), expected)


def test_whole_crops_are_the_image_or_its_mirror_normalised() -> None:
    some = ArrayImages(np.random.default_rng(0).integers(0, 255, (40, 8, 8, 3), dtype=np.uint8), None)
    crops = Crops(some, 8, MEAN, STD, scale=(1, 1))
    flipped = whole = 0
    for index in range(40):
        pixels = torch.from_numpy(np.array(some.image(index))).permute(2, 0, 1) / 255
        plain = (pixels - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
        whole += torch.allclose(crops[index], plain, atol=1e-5)
        flipped += torch.allclose(crops[index], plain.flip(-1), atol=1e-5)
    # With the whole area, only an aspect ratio near 1 fits; the others are cut to 4:3 or 3:4.
    assert whole > 0
    assert flipped > 0


@pytest.mark.parametrize("scale", [(0, 1), (0.5, 0.2), (0.5, 1.5)])
def test_scales_that_are_none_are_refused(scale: tuple[float, float]) -> None:
    with pytest.raises(ConfigError, match="crop scale"):
        Crops(images(), 8, MEAN, STD, scale=scale)


def test_the_encoder_is_frozen_and_its_statistics_too(model: Model) -> None:
    before = {name: value.clone() for name, value in model.encoder.state_dict().items()}
    score_linear_augmented(model, splits(), seeds=2, epochs=2)
    after = model.encoder.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert not model.encoder.training
    assert all(parameter.grad is None for parameter in model.encoder.parameters())


def test_each_epoch_has_new_features_on_both_routes_in_one_pass(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    passes: list[dict[Route, Any]] = []

    def recorded(*args: Any, **kwargs: Any) -> Any:
        passes.append(extract_prepared(*args, **kwargs))
        return passes[-1]

    monkeypatch.setattr(linear, "extract_prepared", recorded)
    evaluation = score_linear_augmented(model, splits(), seeds=3, epochs=4)
    assert len(passes) == 4  # not 4 x 3 seeds x 2 routes
    assert {tuple(found) for found in passes} == {(Route.DENSE, Route.GATED)}
    for route in model.routes:
        assert not np.allclose(passes[0][route].features, passes[1][route].features)
    assert set(evaluation.routes) == {Route.DENSE, Route.GATED}


def test_the_result_is_that_of_classifiers_fed_by_hand(model: Model) -> None:
    data = splits()
    evaluation = score_linear_augmented(model, data, seeds=2, epochs=3, crop_seed=7)
    assert evaluation == score_linear_augmented(model, data, seeds=2, epochs=3, crop_seed=7)
    own = model.config.data
    assert data.evaluation_train.labels is not None
    assert data.test.labels is not None
    for route in model.routes:
        reached = []
        test = extract(model, data.test, [route])[route]
        for seed in range(2):
            classifier = PlainClassifier(model.feature_dim, 3, seed=seed, epochs=3)
            for epoch in range(3):
                crops = Crops(data.evaluation_train, own.image_size, own.mean, own.std, seed=7, epoch=epoch)
                classifier.epoch(extract_prepared(model, crops, [route])[route].features, data.evaluation_train.labels)
            reached.append(classifier.accuracy(test.features, data.test.labels))
        assert evaluation.routes[route].top1 == pytest.approx(np.mean(reached), abs=0.1)
        assert evaluation.routes[route].std == pytest.approx(np.std(reached, ddof=1), abs=0.1)
        assert evaluation.routes[route].macs == pytest.approx(float(test.macs.mean()))


def test_the_crop_seed_matters(model: Model) -> None:
    data = splits()
    crops = [Crops(data.evaluation_train, 8, MEAN, STD, seed=seed) for seed in (0, 1)]
    features = [extract_prepared(model, some, [Route.DENSE])[Route.DENSE].features for some in crops]
    assert not np.allclose(*features)


def test_images_without_labels_are_refused_before_anything_is_computed(model: Model) -> None:
    nameless = ArrayImages(np.zeros((4, 8, 8, 3), np.uint8), None)
    with pytest.raises(DataError, match="labels"):
        score_linear_augmented(model, Splits(nameless, nameless, nameless, ()))


# the command


@pytest.fixture(scope="module")
def run(model: Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = RunFolder.create(tmp_path_factory.mktemp("augmented") / "run", model.config)
    folder.save_model(model.encoder)
    return folder.path


def evaluated(run: Path, *options: str) -> Any:
    said = CliRunner().invoke(main, ["evaluate", str(run), "--protocol", "linear", "--json", *options])
    assert said.exit_code == 0, said.stderr
    return json.loads(said.stdout)


@pytest.mark.long
def test_the_command_augments_when_asked(run: Path) -> None:
    plain = evaluated(run, "--epochs", "2", "--seeds", "2")
    assert "augment" not in plain
    assert (plain["epochs"], plain["seeds"]) == (2, 2)
    augmented = evaluated(run, "--epochs", "2", "--seeds", "2", "--augment")
    assert augmented["augment"] == "crops of 0.08 to 1, flips"
    assert augmented == evaluated(run, "--epochs", "2", "--seeds", "2", "--augment")
    assert "0.5 to 0.9" in evaluated(run, "--epochs", "1", "--augment", "--crop-scale", "0.5", "0.9")["augment"]


def test_the_library_takes_the_same_options(run: Path) -> None:
    evaluation = ssl_dc.evaluate(run, "linear", seeds=1, epochs=1, augment=True, crop_scale=(0.5, 1))
    assert evaluation.settings == {"seeds": 1, "epochs": 1, "augment": "crops of 0.5 to 1, flips"}
    with pytest.raises(ConfigError, match="--augment"):
        ssl_dc.evaluate(run, "linear", crop_scale=(0.5, 1))
