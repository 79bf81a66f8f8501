"""Looking at an encoder while it learns: what is found, that the training is left alone, and the best model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import ssl_dc
from helpers.command_line import message, refused
from helpers.settings import TINY, as_options, config_of
from helpers.training import logged
from ssl_dc.data.held_out import NoLabelledImages
from ssl_dc.errors import ConfigError
from ssl_dc.evaluation.looks import Look, is_better
from ssl_dc.run_folder import RunFolder
from ssl_dc.tensor_files import read_tensors
from ssl_dc.training.best_model import WITH_LABELS, BestModel

MEASURES = ("knn", "linear", "rankme", "lidar", "alpha_req")
NAMES = {f"watch/{measure}/{route}" for measure in MEASURES for route in ("dense", "gated")}
SETTINGS = {**TINY, "training.watch_every": 3}
"""Eight steps; looks after 3, 6 and 8."""


@pytest.fixture(scope="module")
def alone(run_of_eight_steps: Path) -> Path:
    """The same training, which nobody looks at."""
    return run_of_eight_steps


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    settings = {**SETTINGS, "training.keep_best": "knn/dense"}
    return ssl_dc.train(settings, output=tmp_path_factory.mktemp("watched") / "run").folder


def test_looks_change_nothing_of_the_training(alone: Path, watched: Path) -> None:
    lines = logged(watched)
    assert [{key: value for key, value in line.items() if key not in NAMES} for line in lines] == logged(alone)
    ours, theirs = read_tensors(watched / "model.safetensors"), read_tensors(alone / "model.safetensors")
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_looks_are_logged(watched: Path) -> None:
    looked = {line["step"]: {key: line[key] for key in NAMES & line.keys()} for line in logged(watched)}
    assert {step for step, values in looked.items() if values} == {3, 6, 8}
    for step in (3, 6, 8):
        assert looked[step].keys() == NAMES
        for route in ("dense", "gated"):
            assert 0 <= looked[step][f"watch/knn/{route}"] <= 100
            assert 0 < looked[step][f"watch/rankme/{route}"] <= 32
    assert looked[3] != looked[8]


def test_the_best_model_is_kept_beside_the_last(watched: Path) -> None:
    record = json.loads((watched / "best" / "best.json").read_text())
    values = {line["step"]: line["watch/knn/dense"] for line in logged(watched) if "watch/knn/dense" in line}
    assert record["value"] == max(values.values())
    assert record["step"] == min(step for step, value in values.items() if value == record["value"])
    assert record["means"] == WITH_LABELS
    assert ssl_dc.load(watched / "best").config == ssl_dc.load(watched).config


class Untouchable(ssl_dc.ImageSet):
    """Images that nobody may touch."""

    @property
    def labels(self) -> None:
        raise AssertionError("the labels of the test images were read")

    def __len__(self) -> int:
        raise AssertionError("the test images were counted")

    def image(self, index: int) -> None:
        raise AssertionError(f"test image {index} was read")


def test_the_test_images_are_not_looked_at() -> None:
    model = ssl_dc.Model.untrained(config_of(SETTINGS))
    splits = ssl_dc.open_splits(ssl_dc.Digits(model.config.data))._replace(test=Untouchable())
    look = Look(model.config, model.cost, splits)
    assert len(look.images) == 64
    assert look(model.encoder).keys() == NAMES
    unlabelled = splits._replace(evaluation_train=NoLabelledImages("there are none"), classes=())
    assert Look(model.config, model.cost, unlabelled)(model.encoder).keys() == {
        name for name in NAMES if not name.startswith(("watch/knn", "watch/linear"))
    }


def test_a_later_best_of_an_abandoned_continuation_does_not_count(copied_run: Path) -> None:
    best = BestModel(RunFolder(copied_run), "knn/dense", is_better)
    encoder = ssl_dc.load(copied_run).encoder
    kept = []
    for step, value in ((3, 50.0), (6, 40.0), (9, 60.0), (6, 55.0), (9, 54.0)):  # it was resumed after step 3
        best.offer(encoder, step, value)
        kept.append(json.loads((copied_run / "best" / "best.json").read_text())["step"])
    assert kept == [3, 3, 9, 6, 6]


def test_a_value_that_is_no_number_is_never_the_best(copied_run: Path) -> None:
    best = BestModel(RunFolder(copied_run), "knn/dense", is_better)
    encoder = ssl_dc.load(copied_run).encoder
    best.offer(encoder, 1, float("nan"))
    assert not (copied_run / "best" / "best.json").exists()
    best.offer(encoder, 2, 50.0)
    best.offer(encoder, 3, float("nan"))
    assert json.loads((copied_run / "best" / "best.json").read_text())["step"] == 2


@pytest.mark.long
def test_other_images_are_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ssl_dc.evaluation.looks.EMBEDDINGS", 80)
    settings = {**SETTINGS, "training.epochs": 1, "training.watch_data": "digits", "training.keep_best": "lidar/gated"}
    run = ssl_dc.train(settings, output=tmp_path / "run")
    assert logged(run.folder)[2].keys() >= NAMES
    assert "No labels" in json.loads((run.folder / "best" / "best.json").read_text())["means"]


def test_what_cannot_be_looked_at_is_refused(tmp_path: Path) -> None:
    options = as_options(SETTINGS)
    assert "unknown data set 'digit'" in refused("train", *options, "--watch-data", "digit")
    assert "need watch_every" in message("train", *as_options(TINY), "--keep-best", "knn/dense")
    assert "training.keep_best" in message("train", *options, "--keep-best", "accuracy")
    settings = {**SETTINGS, "gating.name": "none", "training.keep_best": "knn/gated"}
    with pytest.raises(ConfigError, match="has no gated route"):
        ssl_dc.train(settings, output=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_handful_of_images_is_looked_at_without_labels(tmp_path: Path) -> None:
    settings = {**SETTINGS, "data.limit": 4, "training.batch_size": 2, "training.epochs": 1, "training.watch_every": 1}
    lines = logged(ssl_dc.train(settings, output=tmp_path / "run").folder)
    assert {"watch/rankme/dense", "watch/rankme/gated"} <= lines[-1].keys()
    assert not {name for name in lines[-1] if name.startswith(("watch/knn", "watch/linear"))}
