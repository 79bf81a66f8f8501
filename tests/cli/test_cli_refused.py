"""Wrong calls of ``ssl-dc train``: refused before anything is written, with one message."""

from __future__ import annotations

from pathlib import Path

import pytest

from helpers.command_line import Trained, call, message, parsed, refused
from helpers.settings import TINY, as_options

DIGITS = as_options({"data.name": "digits", **TINY})


@pytest.mark.parametrize("budget", ["1.5", "0", "-0.1", "nan", "much"])
def test_a_budget_outside_its_range_is_refused(budget: str) -> None:
    text = message("train", "--budget", budget)
    assert "--budget: budget.target = " in text
    assert "allowed: above 0, at most 1" in text


@pytest.mark.parametrize("data", [["--data", "digits"], []], ids=["data named", "data not named"])
def test_a_budget_below_the_floor_is_refused_naming_the_floor(data: list[str]) -> None:
    network = ["--width", "4", "--stem", "cifar", "--image-size", "8"]
    floor = parsed("cost", *data, *network)["ratio"]
    text = message("train", *data, "--budget", "0.001", *network)
    assert "budget.target = 0.001" in text
    assert f"{floor:.5f}" in text


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--objective", "vicrg"], ["unknown objective 'vicrg'", "Did you mean 'vicreg'?"]),
        (["--backbone", "resnet18:wide"], ["unknown backbone", "--backbone resnet18 --backbone.OPTION wide"]),
        (["--backbone", "resnet"], ["unknown backbone 'resnet'", "resnet18"]),
        (["--set", "objective.invarance=1"], ["objective.invarance", "did you mean 'objective.invariance'?"]),
        (["--set", "invariance"], ["--set invariance"]),
        (["--config", "nothing.yaml"], ["nothing.yaml"]),
        (["--gating", "none", "--budget", "0.1"], ["budget.target", "none"]),
        (["--gating", "none", "--routes", "gated,dense"], ["routes", "none"]),
        (["--data", "folder"], ["--data-root"]),
        (["--data", "folder", "--data-root", "nowhere"], ["nowhere"]),
        (["--data", "digits", "--limit", "20", "--batch-size", "32"], ["training.batch_size", "32", "20"]),
        (["--data", "digits", "--precision", "fp16", "--width", "4"], ["training.precision", "fp16", "allowed: no, bf16"]),
    ],
)
def test_a_wrong_call_is_refused_with_one_message(arguments: list[str], said: list[str]) -> None:
    text = message("train", *arguments)
    for words in said:
        assert words in text


def test_a_misspelt_command_is_answered_with_the_nearest_one() -> None:
    assert "No such command 'evalaute'. Did you mean 'evaluate'?" in call("evalaute").stderr
    assert call("xyz").stderr.endswith("No such command 'xyz'.\n")


def test_several_errors_of_a_call_are_told_together() -> None:
    text = refused("train", "--budget", "7", "--epochs", "0", "--seed", "x")
    for words in ("--budget: budget.target = 7", "--epochs: training.epochs = 0", "--seed: seed = 'x'"):
        assert words in text


@pytest.mark.parametrize("made", ["", "train", "train/cat", "train/cat val/cat"])
def test_a_data_folder_without_images_is_refused(here: Path, made: str) -> None:
    (here / "data").mkdir()
    for folder in made.split():
        (here / "data" / folder).mkdir(parents=True)
    assert str(here / "data") in message("train", "--data", "folder", "--data-root", "data")


def test_an_existing_folder_is_refused_and_not_touched(here: Path) -> None:
    (here / "run").mkdir()
    (here / "run" / "notes.txt").write_text("mine")
    assert "run" in message("train", *DIGITS, "--output", "run")
    (here / "file").write_text("mine")
    assert "file" in message("train", *DIGITS, "--output", "file")
    assert (here / "run" / "notes.txt").read_text() == "mine"


def test_a_folder_that_cannot_be_made_is_a_failure(here: Path) -> None:
    (here / "file").write_text("mine")
    text = refused("train", *DIGITS, "--output", "file/run", status=1)
    assert "file/run" in text


def test_resuming_takes_no_other_options(trained: Trained) -> None:
    assert "--seed" in message("train", "--resume", trained.folder, "--seed", "1")
    assert "--output" in message("train", "--resume", trained.folder, "--output", "other")
    assert "nowhere is not a run folder" in message("train", "--resume", "nowhere")


def test_a_loss_that_is_not_finite_is_a_failure_that_keeps_the_resume_points(here: Path) -> None:
    result = call("train", *DIGITS, "--lr", "1e30", "--set", "training.checkpoint_every=1", "--output", "run")
    assert result.exit_code == 1
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    *_, last = result.stderr.splitlines()
    assert last.startswith("ssl-dc: step ")
    for words in ("not finite", "invariance", "Last resume point: run/checkpoints/step-0000", "optimizer.lr"):
        assert words in last
    assert list((here / "run" / "checkpoints").glob("step-*"))
    assert not (here / "run" / "model.safetensors").exists()


def test_a_data_root_without_a_data_set_is_refused() -> None:
    assert "--data (arrow, cifar10, " in message("train", "--data-root", "nowhere")
