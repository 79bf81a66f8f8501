"""``ssl-dc config``, and the order in which settings override one another."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from helpers.command_line import call, done, message, parsed, refused
from ssl_dc.cli.options import SETTINGS
from ssl_dc.config import RECIPE, dump, file_layer, override_layer, resolve


def test_config_show_is_a_config_that_reads_back_equal(here: Path) -> None:
    text = done("config", "show", "--budget", "0.1", "--set", "objective.invariance=10")
    (here / "shown.yaml").write_text(text)
    expected = resolve([override_layer(["budget.target=0.1", "objective.invariance=10"])]).config
    assert resolve([file_layer(here / "shown.yaml")]).config == expected
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert "target: 0.1 # --budget" in lines
    assert "invariance: 10.0 # --set objective.invariance" in lines


def test_config_show_json_is_what_a_run_saves() -> None:
    shown = parsed("config", "show", "--data", "cifar10", "--gating", "none")
    assert shown == json.loads(dump(resolve([override_layer(["data=cifar10", "gating=none"])]).config))


def test_named_options_rank_above_the_file_and_set_above_them(here: Path) -> None:
    (here / "run.yaml").write_text("training:\n  epochs: 2\n  batch_size: 32\n  workers: 1\n")
    shown = parsed(
        *("config", "show", "--config", "run.yaml", "--epochs", "3", "--batch-size", "48", "--set", "training.epochs=4")
    )
    training = shown["training"]
    assert (training["epochs"], training["batch_size"], training["workers"]) == (4, 48, 1)


@pytest.mark.parametrize("folder", [["--data", "folder"], ["--data.name=folder"], ["--set", "data=folder"]], ids=" ".join)
def test_a_part_named_in_any_way_keeps_the_options_of_the_same_call(folder: list[str]) -> None:
    words = ["--bad-images", "skip", *folder, "--data-root", "pictures", "--recipe", "paper"]
    assert parsed("config", "show", *words)["data"]["bad_images"] == "skip"


def test_every_named_option_sets_its_key(here: Path) -> None:
    words: dict[str, tuple[str, Any]] = {
        "--objective": ("barlow_twins", "barlow_twins"),
        "--gating": ("convnet_aig", "convnet_aig"),
        "--budget": ("0.25", 0.25),
        "--budget-control": ("penalty", "penalty"),
        "--encoder": ("double", "double"),
        "--backbone": ("resnet50", "resnet50"),
        "--width": ("8", 8),
        "--stem": ("strided", "strided"),
        "--norm": ("shared", "shared"),
        "--views": ("standard", "standard"),
        "--optimizer": ("adamw", "adamw"),
        "--routes": ("gated,gated", ["gated", "gated"]),
        "--gate-warmup": ("1", 1),
        "--data": ("folder", "folder"),
        "--data-root": ("pictures", str(here / "pictures")),
        "--limit": ("64", 64),
        "--bad-images": ("skip", "skip"),
        "--image-size": ("24", 24),
        "--epochs": ("7", 7),
        "--init": ("runs/first", str(here / "runs/first")),
        "--watch-every": ("50", 50),
        "--watch-data": ("cifar10", "cifar10"),
        "--watch-root": ("there", str(here / "there")),
        "--keep-best": ("rankme/dense", "rankme/dense"),
        "--batch-size": ("96", 96),
        "--lr": ("1e-3", 0.001),
        "--seed": ("9", 9),
        "--workers": ("0", 0),
        "--precision": ("bf16", "bf16"),
        "--tracker": ("tensorboard", "tensorboard"),
    }
    assert {setting.flag for setting in SETTINGS} == {*words, "--download", "--recipe"}
    arguments = [text for flag, (given, _) in words.items() for text in (flag, given)]
    shown = parsed("config", "show", "--download", "--recipe", "paper", *arguments)
    for setting in (each for each in SETTINGS if each.key != RECIPE):
        value = shown
        for key in setting.key.split("."):
            value = value[key]
        assert value == words.get(setting.flag, ("", True))[1], setting.flag


@pytest.mark.parametrize("words", [["--bn", "shared"], ["--bn=shared"]], ids=" ".join)
def test_the_old_name_of_an_option_is_taken_with_a_warning(here: Path, words: list[str]) -> None:
    said = call("config", "show", "--json", *words)
    assert said.stderr == "ssl-dc: --bn is --norm now; the old name goes in 0.2\n"
    assert json.loads(said.stdout)["norm"]["name"] == "shared"
    assert "--bn" not in call("train", "--help").stdout


def test_config_validate_says_valid(here: Path) -> None:
    (here / "run.yaml").write_text("budget:\n  target: 0.1\n")
    assert done("config", "validate", "run.yaml") == "run.yaml: valid\n"


def test_config_validate_tells_every_error_with_its_line(here: Path) -> None:
    (here / "run.yaml").write_text("sed: 1\nbudget:\n  target: 7\n")
    text = refused("config", "validate", "run.yaml")
    assert "run.yaml:1: unknown key 'sed'; did you mean 'seed'?" in text
    assert "run.yaml:3: budget.target = 7" in text
    assert "nothing.yaml" in message("config", "validate", "nothing.yaml")
