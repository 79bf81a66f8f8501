"""What a run computes depends on its config and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import ssl_dc
from helpers.settings import SHORT, TWO_BY_TWO
from helpers.training import assert_same_files, logged


@pytest.mark.long
@pytest.mark.parametrize(
    "settings",
    [{}, {"optimizer.name": "lars", "gating.name": "convnet_aig", "objective.name": "barlow_twins"}],
    ids=["vicreg", "barlow"],
)
def test_two_identical_runs_are_identical(tmp_path: Path, settings: dict[str, Any]) -> None:
    for name in ("one", "two"):
        torch.manual_seed(len(name))  # what happened before in the process does not matter
        np.random.seed(len(name))
        ssl_dc.train({**TWO_BY_TWO, **settings}, output=tmp_path / name)
        torch.rand(3)
    assert_same_files(tmp_path / "one", tmp_path / "two")


@pytest.mark.long
def test_another_seed_is_another_run(tmp_path: Path) -> None:
    ssl_dc.train(TWO_BY_TWO, output=tmp_path / "one")
    ssl_dc.train({**TWO_BY_TWO, "seed": 1}, output=tmp_path / "two")
    assert logged(tmp_path / "one")[0]["loss"] != logged(tmp_path / "two")[0]["loss"]


@pytest.mark.long
def test_the_number_of_workers_does_not_change_what_is_computed(tmp_path: Path, finished_run: ssl_dc.Run) -> None:
    ssl_dc.train({**SHORT, "training.workers": 2}, output=tmp_path / "two")
    assert_same_files(finished_run.folder, tmp_path / "two", "metrics.jsonl", "model.safetensors")


@pytest.mark.parametrize(("optimizer", "peak"), [("adamw", 2e-3), ("lars", 0.3 * 16 / 256)])
def test_the_learning_rate_of_each_step_is_the_schedules(tmp_path: Path, optimizer: str, peak: float) -> None:
    warmup = {"training.warmup_share": 0.5, "training.least_warmup": 0}
    ssl_dc.train({**TWO_BY_TWO, "optimizer.name": optimizer, **warmup}, output=tmp_path / "run")
    shares = [0.01, 0.505, 1.0, 0.5]
    assert [line["lr"] for line in logged(tmp_path / "run")] == pytest.approx([peak * share for share in shares])


@pytest.mark.long
def test_logging_less_often_changes_only_what_is_logged(tmp_path: Path) -> None:
    ssl_dc.train(TWO_BY_TWO, output=tmp_path / "all")
    ssl_dc.train({**TWO_BY_TWO, "training.log_every": 3}, output=tmp_path / "some")
    assert [line["step"] for line in logged(tmp_path / "some")] == [3, 4]
    assert logged(tmp_path / "some") == [line for line in logged(tmp_path / "all") if line["step"] >= 3]
    assert_same_files(tmp_path / "all", tmp_path / "some", "model.safetensors")
