"""What tests of the command line share."""

from __future__ import annotations

from pathlib import Path

import pytest

import ssl_dc
from helpers.command_line import Trained, run_command
from helpers.settings import SHORT

TRAIN = [
    *("train", "--limit", "64", "--batch-size", "32", "--workers", "0", "--epochs", "2"),
    *("--width", "4", "--image-size", "8", "--set", "objective.expander_width=16"),
    *("--set", "data.test_limit=60", "--set", "training.log_every=1"),
]
"""The call of a training of two epochs of two steps, by options that have names of their own."""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory for every test."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """A run that a process of its own trained; tests that change the folder work on a copy."""
    folder = tmp_path_factory.mktemp("cli") / "run"
    said = run_command(*TRAIN, "--output", folder, "--json")
    assert said.returncode == 0, said.stderr
    return Trained(folder, said)


SMALL = {**SHORT, "data.image_size": 16, "data.limit": 64, "training.batch_size": 32, "backbone.width": 8}
"""A network that every runtime takes, and that images of 16 px pass through."""


@pytest.fixture(scope="session")
def gated_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with gates, to be timed and exported."""
    return ssl_dc.train({**SMALL, "budget.target": 0.5}, output=tmp_path_factory.mktemp("runs") / "gated").folder


@pytest.fixture(scope="session")
def ungated_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run without gates."""
    return ssl_dc.train({**SMALL, "gating.name": "none"}, output=tmp_path_factory.mktemp("runs") / "ungated").folder
