"""Evaluation where the data has moved, and on other data than the run's own."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import ssl_dc
from helpers.command_line import call, parsed
from ssl_dc.config import resolve, uniform_layer
from ssl_dc.errors import ConfigError, DataError
from ssl_dc.evaluation.knn import score_knn
from ssl_dc.evaluation.other_data import on_other_data, other_data
from ssl_dc.evaluation.scores import extract_splits, own_splits
from ssl_dc.model import Model
from ssl_dc.routes import Route
from ssl_dc.run_folder import RunFolder

SETTINGS: dict[str, Any] = {
    "data.name": "folder",
    "data.image_size": 12,
    "data.mean": (0.1, 0.2, 0.3),
    "data.std": (0.4, 0.5, 0.6),
    "backbone.width": 4,
    "backbone.stem": "cifar",
    "objective.expander_width": 16,
    "training.workers": 0,
}


def pictures(root: Path, *, labelled: bool) -> Path:
    """Red and blue pictures: 30 to learn from and 20 held out, or 40 without labels."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 15), ("val", 10)) if labelled else (("", 20),):
        for channel, name in enumerate(("blue", "red")):
            folder = root / split / name if labelled else root
            folder.mkdir(parents=True, exist_ok=True)
            for number in range(count):
                pixels = rng.integers(0, 60, (16, 20, 3), dtype=np.uint8)
                pixels[..., 2 - 2 * channel] += 180
                Image.fromarray(pixels).save(folder / f"{name}-{number}.png")
    return root


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pictures(tmp_path_factory.mktemp("labelled") / "pics", labelled=True)


@pytest.fixture(scope="module")
def run(labelled: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose config names its data by a path that is relative to another folder."""
    return saved({**SETTINGS, "data.root": "pics"}, tmp_path_factory.mktemp("moved") / "run")


@pytest.fixture(scope="module")
def unlabelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on pictures without labels."""
    root = pictures(tmp_path_factory.mktemp("unlabelled") / "pics", labelled=False)
    return saved({**SETTINGS, "data.root": str(root)}, root.parent / "run")


def saved(settings: dict[str, Any], path: Path) -> Path:
    model = Model.untrained(resolve([uniform_layer(settings, "test")]).config)
    folder = RunFolder.create(path, model.config)
    folder.save_model(model.encoder)
    return folder.path


def test_a_run_can_be_told_where_its_data_is(run: Path, labelled: Path, tmp_path: Path) -> None:
    lost = call("evaluate", run)
    assert lost.exit_code == 2
    assert "--data-root" in lost.stderr
    found = parsed("evaluate", run, "--data-root", labelled)
    assert (found["train_images"], found["test_images"]) == (30, 20)
    moved = shutil.copytree(labelled, tmp_path / "elsewhere")
    assert parsed("evaluate", run, "--data-root", moved) == found
    assert ssl_dc.evaluate(run, data_root=moved).as_json() == found
    assert ssl_dc.load(run).config.data.root == Path("pics").absolute(), "the run itself is not changed"


def test_the_cost_of_a_run_whose_data_has_moved(run: Path, labelled: Path) -> None:
    found = parsed("cost", run, "--data-root", labelled)
    assert found["gated_is"] == "the mean over 20 held-out images"
    assert call("cost", run, "--data-root", labelled, "--width", "8").exit_code == 2


@pytest.mark.long
def test_bench_of_a_run_whose_data_has_moved(run: Path, labelled: Path) -> None:
    quick = (
        "bench",
        run,
        "--seconds",
        "0.1",
        "--images",
        "2",
        "--batch",
        "2",
        "--threads",
        "1",
        "--runtime",
        "eager",
        "--accuracy-images",
        "0",
    )
    lost = call(*quick)
    assert lost.exit_code == 2
    assert "--data-root" in lost.stderr
    assert len(parsed(*quick, "--data-root", labelled)["situations"]) == 2


@pytest.mark.long
@pytest.mark.usefixtures("timed_briefly")
def test_a_static_export_of_a_run_whose_data_has_moved(run: Path, labelled: Path, tmp_path: Path) -> None:
    export = ("export", run, "--format", "torch", "--output", tmp_path / "network.pt2")
    static = (*export, "--route", "gated", "--static", "0.1")
    lost = call(*static)
    assert lost.exit_code == 2
    assert "--data-root" in lost.stderr
    assert set(parsed(*static, "--data-root", labelled)["networks"]) == {"dense", "gated", "static"}
    unused = call(*export, "--data-root", labelled)
    assert unused.exit_code == 2
    assert "nothing else of export opens images" in unused.stderr


def test_a_run_without_labels_is_evaluated_on_a_labelled_set(unlabelled: Path, labelled: Path) -> None:
    there = ("--eval-data", "folder", "--eval-data-root", labelled)
    found = parsed("evaluate", unlabelled, *there)
    assert (found["train_images"], found["test_images"]) == (30, 20)
    assert found["routes"]["dense"]["top1"] == 100, "red and blue are told apart"
    linear = parsed("evaluate", unlabelled, "--protocol", "linear", "--epochs", "2", *there)
    assert set(linear["routes"]) == {"dense", "gated"}
    gates = parsed("evaluate", unlabelled, "--protocol", "gates", *there)
    assert gates["classes"] == ["blue", "red"]


def test_other_images_are_taken_as_the_models_own(unlabelled: Path, labelled: Path) -> None:
    model = ssl_dc.load(unlabelled)
    other = on_other_data(model, other_data("--eval-data", "folder", root=labelled))
    data = other.config.data
    assert (data.image_size, data.mean, data.std) == (12, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    image = own_splits(other).test.image(0)
    assert (other.transform(image) == model.transform(image)).all()
    expected = score_knn(extract_splits(model, own_splits(other)))
    found = ssl_dc.evaluate(unlabelled, "knn", eval_data="folder", eval_data_root=labelled)
    assert found == expected
    assert set(found.routes) == {Route.DENSE, Route.GATED}


def test_options_of_the_other_set_are_checked_and_used(unlabelled: Path, labelled: Path) -> None:
    there = ("--eval-data", "folder", "--eval-data-root", labelled)
    found = parsed("evaluate", unlabelled, *there, "--eval-data-set", "test_limit=8")
    assert found["test_images"] == 8
    digits = parsed("evaluate", unlabelled, "--eval-data", "digits", "--eval-data-set", "limit=40")
    assert (digits["train_images"], digits["test_images"]) == (40, 360)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--eval-data", "nope"), "unknown data set 'nope'"),
        (("--eval-data", "folder"), "--eval-data-root"),
        (("--eval-data", "cifar10", "--eval-data-root", "/not/there"), "--eval-data-set download=true"),
        (("--eval-data", "digits", "--eval-data-set", "foo=1"), "--eval-data-set foo: unknown key"),
        (("--eval-data", "digits", "--eval-data-set", "image_size=8"), "the model's own size"),
        (("--eval-data", "digits", "--eval-data-set", "foo"), "KEY=VALUE"),
        (("--eval-data-root", "/not/there"), "belong to --eval-data"),
        (("--eval-data", "digits", "--data-root", "/not/there"), "give one of them"),
    ],
)
def test_what_is_wrong_with_the_other_set_is_said_in_its_options(
    unlabelled: Path, words: tuple[str, ...], says: str
) -> None:
    result = call("evaluate", unlabelled, *words)
    assert result.exit_code == 2, result.exception
    assert says in result.stderr
    assert result.stdout == ""
    assert " --data-root" not in result.stderr.replace("--data-root says where the run's own", "")


@pytest.mark.parametrize("protocol", ["knn", "linear"])
def test_a_protocol_that_needs_labels_says_so_and_what_to_do(unlabelled: Path, protocol: str) -> None:
    with pytest.raises(DataError, match=r"needs labels.*--eval-data NAME --eval-data-root FOLDER"):
        ssl_dc.evaluate(unlabelled, protocol)


@pytest.mark.long
def test_what_needs_no_labels_works_without(unlabelled: Path, tmp_path: Path) -> None:
    gates = call("evaluate", unlabelled, "--protocol", "gates", "--output", tmp_path / "gates.png")
    assert gates.exit_code == 0, gates.stderr
    assert "gates on 4 " in gates.stdout
    assert (tmp_path / "gates.png").is_file()
    assert "the mean over 4 held-out images" in call("cost", unlabelled).stdout


def test_options_of_the_other_set_belong_to_it() -> None:
    with pytest.raises(ConfigError, match="the model's own"):
        other_data("--eval-data", "digits", settings={"mean": 0.5})


def test_a_budget_that_is_calibrated_on_the_runs_own_images_finds_them_where_they_are_now(
    run: Path, labelled: Path, tmp_path: Path
) -> None:
    here = ("--data-root", labelled, "--budget", "0.6")
    export = ("export", run, "--route", "gated", "--format", "torch", "--output", tmp_path / "network.pt2")
    assert parsed(*export, *here)["description"]["ssl_dc.budget"] == "0.6"
    found = parsed("evaluate", run, *here, "--eval-data", "folder", "--eval-data-root", labelled)
    assert "gated@0.6" in found["routes"]
    assert call("evaluate", run, "--data-root", labelled, "--eval-data", "digits").exit_code == 2
    embedded = parsed("embed", run, labelled / "val", "--route", "gated", *here, "-o", tmp_path / "e.npy")
    assert (embedded["route"], embedded["images"]) == ("gated@0.6", 20)


def test_reports_on_other_data_name_the_data_that_the_run_learned_from(unlabelled: Path, labelled: Path) -> None:
    other = ("--eval-data", "folder", "--eval-data-root", labelled, "--json")
    digits = saved({**SETTINGS, "data.name": "digits", "data.image_size": 8}, labelled.parent / "digits")
    found = json.loads(call("evaluate", digits, "--protocol", "gates", *other).stdout)
    assert found["run"].startswith("digits, ")
    assert found["measured_on"] == "20 held-out images of folder"
    curve = ("--protocol", "curve", "--epochs", "1", "--seeds", "1", "--beside", digits)
    beside = json.loads(call("evaluate", digits, *curve, *other).stdout)["runs"]
    assert [each["test_images"] for each in beside] == [20, 20]


def test_a_protocol_that_opens_its_own_data_takes_no_other(unlabelled: Path, labelled: Path) -> None:
    transfer = ("evaluate", unlabelled, "--protocol", "transfer", "--to", "digits")
    for option in (("--eval-data", "folder"), ("--data-root", labelled)):
        refused = call(*transfer, *option)
        assert refused.exit_code == 2
        assert f"{option[0]}: protocol transfer opens a data set of its own" in refused.stderr
