"""Two processes take the steps of one with the whole batch, and a run goes on with another number of processes."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import ssl_dc
from helpers.command_line import message
from helpers.forked import run_two_forked
from helpers.launched_steps import first_step, part_of_run
from helpers.settings import TINY
from helpers.training import logged, saved_steps
from ssl_dc.errors import ConfigError
from ssl_dc.training.batches import check_local_batch

RUN: dict[str, Any] = {**TINY, "views.name": "batched", "gating.noise": 0.0, "training.epochs": 3}
"""Three epochs of four steps. Gates draw no noise: each process would draw its own."""
ONE_STEP: dict[str, Any] = {**RUN, "training.epochs": 1, "data.limit": 16}
SYSTEMS: dict[str, dict[str, Any]] = {
    "dual": {},
    "barlow-twins": {"objective.name": "barlow_twins"},
    "layer-gates": {"gating.name": "convnet_aig", "norm.name": "shared"},
    "accumulated": {"training.accumulation": 2},
    "distilled": {"training.distillation": 2.0},
    "standard-views": {"views.name": "standard"},
    "local-view": {"data.image_size": 16, "views.global_count": 1, "views.local_size": 8, "routes": ["gated", "gated"]},
}
"""Each takes one step of 16 images."""
ERROR = {"layer-gates": 2e-5, "distilled": 2e-5}
"""Error of float32 gradients, as a share of the largest, where it is not 1e-5: a gate for each layer magnifies rounding,
and distillation has more passes to add up. The same in float64 is held to 1e-6."""


def launch(folder: Path, systems: dict[str, Any], until: int | None) -> subprocess.CompletedProcess[str]:
    """Two processes: the first step of each system, then the run until a step."""
    words = (folder, json.dumps(systems), json.dumps(RUN), json.dumps(until))
    return run_two_forked("from helpers.launched_steps import main; main()", *words)


@pytest.fixture(scope="module")
def launched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """First steps by two processes, and a run that two, one and two processes have trained in turn."""
    folder = tmp_path_factory.mktemp("launched")
    steps = {name: {**ONE_STEP, **extra} for name, extra in SYSTEMS.items()}
    first = launch(folder, steps, until=3)
    assert saved_steps(folder / "run")[-1] == 3, first.stderr[-2000:]
    part_of_run(folder / "run", {}, until=7)
    assert saved_steps(folder / "run")[-1] == 7
    last = launch(folder, {}, until=None)
    assert (folder / "run" / "result.json").is_file(), last.stderr[-2000:]
    return folder


@pytest.mark.long
@pytest.mark.parametrize("float64", [False, True], ids=["float32", "float64"])
@pytest.mark.parametrize("name", SYSTEMS)
def test_two_processes_take_the_step_of_one_with_the_whole_batch(launched: Path, name: str, float64: bool) -> None:
    values, gradients = first_step({**ONE_STEP, **SYSTEMS[name]}, float64)
    halves = [torch.load(launched / f"{name}-{float64}-{rank}.pt") for rank in (0, 1)]
    shared = halves[0][0]
    assert shared.keys() == values.keys()
    assert {"loss", "cost_ratio"} < values.keys()
    for key, value in values.items():
        assert shared[key] == pytest.approx(value, rel=1e-5, abs=1e-5), key
    largest = max(gradient.abs().max().item() for gradient in gradients.values())
    for _, of_process in halves:
        assert of_process.keys() == gradients.keys()
        for key, gradient in gradients.items():
            torch.testing.assert_close(
                of_process[key],
                gradient,
                rtol=1e-5,
                atol=(1e-6 if float64 else ERROR.get(name, 1e-5)) * largest,
                msg=lambda text, key=key: f"{key}: {text}",
            )


@pytest.mark.long
def test_a_run_of_two_goes_on_with_one_and_back(launched: Path, tmp_path: Path) -> None:
    whole = ssl_dc.train(RUN, output=tmp_path / "whole").folder
    ours, expected = logged(launched / "run"), logged(whole)
    assert [line["step"] for line in ours] == list(range(1, 13))
    for one, other in zip(ours, expected, strict=True):
        assert one.keys() == other.keys()
        assert {key: one[key] for key in ("step", "epoch", "lr")} == {key: other[key] for key in ("step", "epoch", "lr")}
        for key in one:
            assert one[key] == pytest.approx(other[key], rel=2e-3, abs=2e-3), (one["step"], key)
    found, weights = (ssl_dc.load(folder).encoder.state_dict() for folder in (launched / "run", whole))
    distance = sum(float((found[n] - w).double().norm() ** 2) for n, w in weights.items() if w.is_floating_point())
    size = sum(float(w.double().norm() ** 2) for w in weights.values() if w.is_floating_point())
    assert np.sqrt(distance / size) < 1e-3


@pytest.mark.long
def test_the_evaluation_of_two_is_that_of_one(launched: Path) -> None:
    result = json.loads((launched / "run" / "result.json").read_text())
    alone = ssl_dc.evaluate(launched / "run", "knn")
    for route, score in alone.routes.items():
        assert result["routes"][str(route)]["knn1"] == score.top1
        assert result["routes"][str(route)]["ratio"] == score.ratio


@pytest.mark.long
def test_a_batch_that_the_processes_cannot_share_is_refused_with_what_they_can(
    monkeypatch: pytest.MonkeyPatch, launched: Path
) -> None:
    monkeypatch.setattr("ssl_dc.training.batches.world_size", lambda: 3)
    config = ssl_dc.load(launched / "run").config
    with pytest.raises(ConfigError, match=r"batch_size 16 .*3 process.*allowed: 1, 2, 4, 8 processes"):
        check_local_batch(config.training)
    assert "--resume goes on with the run's own config" in message(
        "train", "--resume", launched / "run", "--batch-size", "15"
    )
