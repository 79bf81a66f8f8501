"""``ssl-dc train`` from end to end: what it prints, what it writes, what resumes it."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from helpers.command_line import Trained, done
from helpers.settings import SHORT, as_options
from ssl_dc import __version__


def test_training_prints_one_json_document_and_progress_elsewhere(
    trained: Trained,
) -> None:
    folder, said = trained
    printed = json.loads(said.stdout)
    assert printed.pop("run") == str(folder)
    assert printed == json.loads((folder / "result.json").read_text())
    assert set(printed["routes"]) == {"dense", "gated"}
    for reached in printed["routes"].values():
        assert 0 <= reached["knn1"] <= 100
        assert 0 <= reached["knn1_untrained"] <= 100
    assert printed["routes"]["dense"]["ratio"] == 1
    assert printed["routes"]["dense"]["macs"] == printed["dense_macs"]
    gated = printed["routes"]["gated"]
    assert gated["macs"] == pytest.approx(gated["ratio"] * printed["dense_macs"])
    assert printed["budget"] == 0.3
    assert "60 held-out images" in printed["measured_on"]
    assert "step 4/4" in said.stderr
    assert not re.search(r"\wWarning", said.stderr), "nobody is shown a warning of Python's"
    assert "Plan" in said.stderr.splitlines()
    assert "Warning: an epoch is 2 steps: lower --batch-size (now 32), to 16 say." in said.stderr
    assert "--data folder" in said.stderr, "whoever names no data is told how to use their own"


def test_a_run_folder_holds_what_its_page_says(trained: Trained) -> None:
    folder = trained.folder
    assert {path.name for path in folder.iterdir()} == {
        "config.json",
        "data.json",
        "model.safetensors",
        "metrics.jsonl",
        "environment.json",
        "history.jsonl",
        "result.json",
        "checkpoints",
    }
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [(line["step"], line["epoch"]) for line in lines] == [(1, 1), (2, 1), (3, 2), (4, 2)]
    for line in lines:
        terms = [value for name, value in line.items() if name.startswith("terms/")]
        assert line["loss"] == pytest.approx(sum(terms), rel=1e-5)
        assert {"lr", "embedding_std", "effective_rank", "cost_ratio"} <= set(line)
    environment = json.loads((folder / "environment.json").read_text())
    assert environment["versions"]["ssl-dc"] == __version__
    assert {"torch", "numpy"} <= set(environment["versions"])
    assert sorted(path.name for path in (folder / "checkpoints").iterdir()) == ["step-00000002", "step-00000004"]


@pytest.mark.long
def test_a_runs_config_trains_it_again(trained: Trained, here: Path) -> None:
    text = done("train", "--config", trained.folder / "config.json", "--output", "again")
    assert "kNN-1" in text
    assert "run: again" in text
    assert (here / "again" / "config.json").read_bytes() == (trained.folder / "config.json").read_bytes()
    assert len((here / "again" / "metrics.jsonl").read_text().splitlines()) == 4


@pytest.mark.long
def test_a_run_without_output_goes_to_a_new_folder_under_runs(here: Path) -> None:
    for _ in range(2):
        done("train", *as_options({"data.name": "digits", **SHORT}), "--gating", "none")
    names = sorted(path.name for path in (here / "runs").iterdir())
    assert names == ["digits-vicreg-none-seed0", "digits-vicreg-none-seed0-2"]


def test_resuming_a_finished_run_ends_at_once_with_the_same_result(trained: Trained, here: Path) -> None:
    shutil.copytree(trained.folder, here / "run")
    result = json.loads(done("train", "--resume", "run", "--json"))
    assert result.pop("run") == "run"
    assert result == json.loads((trained.folder / "result.json").read_text())
    for name in ("metrics.jsonl", "model.safetensors"):
        assert (here / "run" / name).read_bytes() == (trained.folder / name).read_bytes()
