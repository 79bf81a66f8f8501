"""A run as a whole: what is counted once, what is saved before what, what its workers are sent."""

from __future__ import annotations

import multiprocessing
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import ssl_dc
from helpers.settings import SHORT, config_of
from helpers.training import assert_same_files
from ssl_dc import runs
from ssl_dc.assemble import build_data_set, build_network, build_objective
from ssl_dc.backbones import base as backbones
from ssl_dc.data.prepared import Prepared
from ssl_dc.data.subsets import open_splits
from ssl_dc.errors import DataError, RunError
from ssl_dc.evaluation.features import extract
from ssl_dc.gating.cost import CostModel
from ssl_dc.routes import Route
from ssl_dc.training.trainer import Trainer

# the cost is counted once


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The networks whose cost was counted, each of which was copied for it."""
    calls: list[str] = []
    count = backbones._count_layers

    def noted(backbone: backbones.Backbone, *arguments: Any) -> Any:
        calls.append(type(backbone).__name__)
        return count(backbone, *arguments)

    monkeypatch.setattr(backbones, "_count_layers", noted)
    return calls


@pytest.mark.long
@pytest.mark.parametrize("encoder", ["shared", "double"])
def test_a_training_counts_its_cost_once_and_so_does_a_load_and_a_resumed_run(
    counted: list[str], tmp_path: Path, encoder: str
) -> None:
    ssl_dc.train({**SHORT, "encoder.name": encoder}, output=tmp_path / "run")
    assert counted == ["ResNet18"]
    model = ssl_dc.load(tmp_path / "run")
    assert counted == ["ResNet18"] * 2
    model.gated(torch.zeros(1, 3, 8, 8))
    for _ in range(2):
        model.gated(torch.zeros(1, 3, 16, 8))
    assert counted == ["ResNet18"] * 3, "another image size is counted when it is first seen"
    ssl_dc.resume(tmp_path / "run")
    assert counted == ["ResNet18"] * 4


def test_a_trainer_composed_by_hand_counts_only_what_it_is_not_given(counted: list[str]) -> None:
    config = config_of(SHORT)

    def trainer(cost: CostModel | None) -> Trainer:
        network = build_network(config)
        counted.clear()
        return Trainer(
            encoder=network.encoder,
            objective=build_objective(config, network.encoder.feature_dim),
            gating=network.gating,
            optimizer=lambda groups: torch.optim.SGD([p for group in groups for p in group.parameters], lr=0.1),
            loader=[[torch.randn(8, 3, 8, 8)] * 2],
            image_size=8,
            training=config.training,
            budget=config.budget,
            cost=cost,
        )

    without = trainer(None)
    without.fit()
    assert counted == ["ResNet18"]
    given = trainer(without.cost)
    given.fit()
    assert counted == []
    assert given.cost is without.cost


# the model is saved before it is evaluated


@pytest.mark.long
@pytest.mark.parametrize(
    ("error", "said"),
    [
        (RunError("the features are not finite."), "the features are not finite. Only the evaluation failed"),
        (DataError("image val/3.png cannot be read."), "(with --bad-images skip, it may be left out)"),
        (ValueError("a plugin's own"), "a plugin's own"),
    ],
    ids=["run", "data", "any"],
)
def test_an_evaluation_that_fails_loses_nothing(
    tmp_path: Path, finished_run: ssl_dc.Run, monkeypatch: pytest.MonkeyPatch, error: Exception, said: str
) -> None:
    whole = finished_run.folder

    def fails(*_arguments: Any) -> None:
        raise error

    folder = tmp_path / "run"
    with monkeypatch.context() as patched:
        patched.setattr(runs, "outcome", fails)
        with pytest.raises(type(error) if isinstance(error, ValueError) else RunError) as caught:
            ssl_dc.train(SHORT, output=folder)
    assert said in str(caught.value)
    if not isinstance(error, ValueError):
        assert caught.value.exit_status == 1
        assert f"saved as {folder / 'model.safetensors'}" in str(caught.value)
        assert f"ssl-dc train --resume {folder}" in str(caught.value)
    assert_same_files(folder, whole, "model.safetensors")
    assert not (folder / "result.json").exists()
    images = torch.randn(2, 3, 8, 8)
    assert torch.equal(ssl_dc.load(folder).dense(images), finished_run.model.dense(images))
    ssl_dc.resume(folder)
    assert_same_files(folder, whole, "result.json")


# what workers are sent


@pytest.fixture
def forkserver() -> Iterator[None]:
    """Processes start as they do by default from Python 3.14 on."""
    before = multiprocessing.get_start_method(allow_none=True)
    multiprocessing.set_start_method("forkserver", force=True)
    yield
    multiprocessing.set_start_method(before, force=True)


def test_workers_of_an_evaluation_are_sent_no_network(forkserver: None) -> None:
    config = config_of({**SHORT, "backbone.width": 64})
    model = ssl_dc.Model.untrained(config)
    images = open_splits(build_data_set(config)).test
    prepared = Prepared(images, model.transform)
    alone = Prepared(images, lambda image: image)
    alone.transform = None  # type: ignore[assignment]
    assert len(pickle.dumps(prepared)) < len(pickle.dumps(alone)) + 4096
    with_workers = extract(model, images, [Route.DENSE], workers=1)[Route.DENSE]
    without = extract(model, images, [Route.DENSE])[Route.DENSE]
    assert (with_workers.features == without.features).all()
