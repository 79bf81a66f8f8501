"""What answers at once imports little and does little: counted, so that a busy machine counts the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from helpers.command_line import call
from helpers.start_up import start_up
from ssl_dc.cli.commands import SUMMARIES


def test_importing_the_package_imports_nothing_else(tmp_path: Path) -> None:
    counted = start_up(tmp_path)
    assert counted.packages == {"ssl_dc"}
    assert counted.calls < 60_000


@pytest.mark.parametrize(("words", "calls"), [(["--version"], 400_000), (["--help"], 600_000)], ids=["version", "help"])
def test_help_imports_and_does_little(tmp_path: Path, words: list[str], calls: int) -> None:
    counted = start_up(tmp_path, *words)
    assert counted.packages == {"click", "pluggy", "ssl_dc"}
    assert counted.calls < calls


@pytest.mark.parametrize(
    "words",
    [["train", "--help"], ["config", "show"], ["train", "--budget", "7"], ["evaluate", "--k", "0"]],
    ids=" ".join,
)
def test_what_trains_nothing_imports_no_torch(tmp_path: Path, words: list[str]) -> None:
    counted = start_up(tmp_path, *words)
    assert "pydantic" in counted.packages, "the test is idle if nothing was checked"
    assert not counted.packages & {"PIL", "accelerate", "numpy", "rich", "sklearn", "torch", "torchvision"}
    assert counted.calls < 1_500_000


def test_help_lists_every_command() -> None:
    said = call("--help")
    assert said.stderr == ""
    for name, summary in SUMMARIES.items():
        assert name in said.stdout
        assert summary in said.stdout
