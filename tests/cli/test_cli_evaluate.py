"""``ssl-dc evaluate``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from helpers.command_line import Trained, call, done, message, parsed, refused
from helpers.settings import SHORT, as_options
from ssl_dc.evaluation import scores


def test_evaluating_by_knn_gives_what_training_reported(trained: Trained) -> None:
    result = json.loads((trained.folder / "result.json").read_text())
    evaluation = parsed("evaluate", trained.folder)
    assert (evaluation["protocol"], evaluation["k"], evaluation["metric"]) == ("knn", 1, "euclidean")
    assert (evaluation["train_images"], evaluation["test_images"]) == (64, 60)
    for route in ("dense", "gated"):
        assert evaluation["routes"][route]["top1"] == result["routes"][route]["knn1"]
        assert evaluation["routes"][route]["ratio"] == pytest.approx(result["routes"][route]["ratio"])


def test_a_route_that_pays_much_more_or_less_than_its_budget_is_named(
    trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = json.loads((trained.folder / "config.json").read_text())
    paid = json.loads((trained.folder / "result.json").read_text())["routes"]["gated"]["ratio"]
    miss = abs(paid - config["budget"]["target"])
    monkeypatch.setattr(scores, "OFF_BUDGET", 0.99 * miss)
    said = call("evaluate", trained.folder, "--json").stderr
    assert f"gated: paid {paid:.2f} of the dense cost on these images; trained for {config['budget']['target']:g}\n" in said
    assert "dense: paid" not in said
    monkeypatch.setattr(scores, "OFF_BUDGET", 1.01 * miss)
    assert "paid" not in call("evaluate", trained.folder, "--json").stderr


def test_evaluating_by_cosine_votes(trained: Trained) -> None:
    evaluation = parsed("evaluate", trained.folder, "--metric", "cosine", "--k", "20")
    assert (evaluation["k"], evaluation["metric"]) == (20, "cosine")
    assert 0 <= evaluation["routes"]["gated"]["top1"] <= 100


def test_evaluating_by_a_linear_classifier(trained: Trained) -> None:
    evaluation = parsed("evaluate", trained.folder, "--protocol", "linear", "--seeds", "2")
    assert evaluation["seeds"] == 2
    assert evaluation["epochs"] == 100
    for score in evaluation["routes"].values():
        assert 0 <= score["top1"] <= 100
        assert score["std"] >= 0
    assert "linear" in done("evaluate", trained.folder, "--protocol", "linear", "--seeds", "1")


def test_evaluating_what_is_no_run_is_refused(here: Path) -> None:
    assert "here is not a run folder" in message("evaluate", here)


def test_evaluating_a_run_that_has_not_ended_says_how_to_go_on(trained: Trained, here: Path) -> None:
    (here / "run").mkdir()
    (here / "run" / "config.json").write_bytes((trained.folder / "config.json").read_bytes())
    assert "--resume run" in refused("evaluate", "run", status=1)


@pytest.mark.long
def test_a_run_on_unlabelled_images_is_told_what_evaluation_lacks_but_has_a_cost(here: Path) -> None:
    (here / "data" / "train").mkdir(parents=True)
    for number in range(8):
        Image.new("RGB", (8, 8), (31 * number, 90, 255 - 31 * number)).save(here / "data" / "train" / f"{number}.png")
    settings = {key: value for key, value in SHORT.items() if not key.startswith("data.") or key == "data.image_size"}
    settings |= {"backbone.stem": "cifar", "training.batch_size": 4}
    printed = parsed("train", "--data", "folder", "--data-root", "data", *as_options(settings), "--output", "run")
    assert {reached["knn1"] for reached in printed["routes"].values()} == {None}
    assert "labels" in message("evaluate", "run")
    assert parsed("cost", "run")["ratio"] == pytest.approx(printed["routes"]["gated"]["ratio"], abs=0.02)
