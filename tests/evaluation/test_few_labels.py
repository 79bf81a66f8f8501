"""Fine-tuning, and learning from a share of the labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import ssl_dc
from helpers.command_line import message, parsed
from helpers.settings import TINY
from ssl_dc.evaluation.few_labels import with_label_share
from ssl_dc.evaluation.finetune import Finetuning, _batch_count
from ssl_dc.evaluation.knn import percent_correct
from ssl_dc.evaluation.options import FinetuneOptions
from ssl_dc.evaluation.scores import own_splits
from ssl_dc.routes import Route

SETTINGS = {
    **TINY,
    "data.limit": 400,
    "data.test_limit": 200,
    "backbone.width": 8,
    "training.batch_size": 80,
    "training.epochs": 1,
    "budget.target": 0.5,
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return ssl_dc.train(SETTINGS, output=tmp_path_factory.mktemp("few") / "run").folder


@pytest.mark.parametrize("share", [0.01, 0.1, 0.33])
def test_a_share_is_stratified_and_seeded(run: Path, share: float) -> None:
    whole = own_splits(ssl_dc.load(run))
    labels = whole.evaluation_train.labels
    drawn = [with_label_share(whole, share, seed) for seed in (0, 0, 1)]
    for splits in drawn:
        counts = np.bincount(splits.evaluation_train.labels, minlength=10)
        wanted = np.maximum(1, np.rint(np.bincount(labels, minlength=10) * share))
        assert np.array_equal(counts, wanted)
        assert splits.test is whole.test
    first, again, other = (splits.evaluation_train.fingerprint() for splits in drawn)
    assert first == again != other
    assert with_label_share(whole, 1, 0) is with_label_share(whole, None, 0) is whole


def test_linear_learns_from_a_share(run: Path) -> None:
    said = parsed("evaluate", run, "--protocol", "linear", "--label-share", "0.1", "--label-seed", "3", "--epochs", "2")
    assert (said["label_share"], said["label_seed"], said["train_images"]) == (0.1, 3, 40)
    whole = parsed("evaluate", run, "--protocol", "linear", "--epochs", "2", "--seeds", "1")
    assert "label_share" not in whole
    assert whole["train_images"] == 400


@pytest.mark.long
def test_fine_tuning_by_the_command_line(run: Path) -> None:
    call = ("evaluate", run, "--protocol", "finetune", "--label-share", "0.1", "--epochs", "1")
    said = parsed(*call)
    assert set(said["routes"]) == {"dense", "gated"}
    assert said["start"] == "the run's weights"
    assert said["train_images"] == 40
    assert said == parsed(*call)
    assert parsed(*call, "--scratch")["start"] == "drawn weights"
    assert "allowed: above 0, at most 1" in message("evaluate", run, "--protocol", "finetune", "--label-share", "2")


@pytest.mark.long
def test_fine_tuning_learns_and_keeps_the_budget(run: Path) -> None:
    """Far more is learned than by chance, the gated route pays its budget, and the model stays as it is."""
    model = ssl_dc.load(run)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    splits = own_splits(model)
    for route in model.routes:
        tuned = Finetuning(model, route, splits, FinetuneOptions(epochs=25, batch_size=40), seed=0)
        tuned.train()
        predicted, test = tuned.predictions(splits)
        assert percent_correct(predicted, splits.test.labels) > 20  # by chance: 10
        if route.gated:
            (images,) = torch.stack([model.transform(splits.train.image(n)) for n in range(400)]).split(400)
            assert float(tuned.model.gated(images).ratio.mean()) == pytest.approx(0.5, abs=0.02)
            assert test.macs.mean() < model.cost.dense_macs
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    whole = ssl_dc.load(run).encoder.state_dict()
    changed = [name for name, value in tuned.model.encoder.state_dict().items() if not torch.equal(value, whole[name])]
    assert any("conv1" in name for name in changed), "the whole network is to learn"


@pytest.mark.long
def test_another_budget_is_kept(run: Path) -> None:
    model = ssl_dc.dialled(ssl_dc.load(run), 0.5).at_budget(0.7)
    splits = own_splits(model)
    tuned = Finetuning(model, model.gated_route, splits, FinetuneOptions(epochs=1, label_share=0.1), seed=0)
    tuned.train()
    assert tuned.route == Route.at(0.7)
    images = torch.stack([model.transform(splits.train.image(number)) for number in range(400)])
    assert float(tuned.model.gated(images).ratio.mean()) == pytest.approx(0.7, abs=0.02)


@pytest.mark.parametrize(("images", "batches"), [(1, 1), (2, 1), (3, 1), (128, 1), (129, 2), (257, 3), (5, 1)])
def test_no_batch_is_a_single_image(images: int, batches: int) -> None:
    assert _batch_count(images, 128) == batches
    if images > 1:
        assert min(len(some) for some in torch.arange(images).tensor_split(_batch_count(images, 2))) > 1
