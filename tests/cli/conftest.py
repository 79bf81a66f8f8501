"""What tests of the command line share."""

from __future__ import annotations

from pathlib import Path

import pytest

from helpers.command_line import Trained, run_command

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
