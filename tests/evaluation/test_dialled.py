"""A trained run at other budgets: by command, by the library, and compiled once."""

from __future__ import annotations

import copy
import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner

import ssl_dc
from helpers.command_line import refused
from helpers.settings import TINY
from ssl_dc.bench.at_most import HALVINGS, largest_that_holds
from ssl_dc.cli import main
from ssl_dc.errors import ConfigError, DialledWarning
from ssl_dc.evaluation.dialled import checked_budgets, dialled
from ssl_dc.gating.base import gates_of

GRID = (0.2, 0.4, 0.6, 0.8)


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run for several budgets."""
    folder = tmp_path_factory.mktemp("runs") / "many"
    ssl_dc.train({**TINY, "backbone.width": 8, "budget.target": "0.2,0.4,0.6,0.8"}, output=folder)
    return folder


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run for one budget."""
    folder = tmp_path_factory.mktemp("runs") / "single"
    ssl_dc.train({**TINY, "backbone.width": 8, "budget.target": 0.4}, output=folder)
    return folder


def images(model: ssl_dc.Model, count: int = 12) -> torch.Tensor:
    size = model.config.data.image_size
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(1))


def by_command(*words: str | Path) -> Any:
    result = CliRunner().invoke(main, [str(word) for word in words])
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


@pytest.mark.long
@pytest.mark.filterwarnings("ignore::ssl_dc.errors.DialledWarning")
@pytest.mark.parametrize("backend", ["native", "torch"])
def test_one_executor_gives_every_budget_as_the_model_does(many: Path, backend: str, monkeypatch: Any) -> None:
    model = ssl_dc.load(many)
    compiled = model.compile_gated(threads=1, backend=backend)
    monkeypatch.setattr("ssl_dc.compiled.executor.capture", None)  # nothing is traced again
    x = images(model)
    draw = np.random.default_rng(0)
    for budget in [*GRID, *draw.uniform(0.05, 1, 40 if backend == "native" else 6)]:
        here, there = compiled(x, float(budget)), model.gated(x, float(budget))
        torch.testing.assert_close(here.features, there.features, rtol=1e-4, atol=1e-4)
        assert all(torch.equal(here.masks[site], there.masks[site]) for site in there.masks)
    torch.testing.assert_close(compiled(x).features, model.gated(x).features, rtol=1e-4, atol=1e-4)


def test_each_image_may_have_a_budget_of_its_own(many: Path) -> None:
    model = ssl_dc.load(many)
    x, budgets = images(model, 5), [0.8, 0.2, 0.45, 0.2, 0.6]
    here, there = model.compile_gated()(x, budgets), model.gated(x, budgets)
    torch.testing.assert_close(here.features, there.features, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(here.macs, there.macs)
    assert len(model.compile_gated()(x[:0], []).features) == 0
    with pytest.raises(ValueError, match="2 budgets for 5 images"):
        model.compile_gated()(x, [0.2, 0.4])


def test_a_budget_that_is_none_is_refused(many: Path) -> None:
    model = ssl_dc.load(many)
    with pytest.raises(ValueError, match="above 0 and at most 1"):
        model.compile_gated()(images(model), 1.5)
    with pytest.raises(ValueError, match="has no budget"):
        model.compile_dense()(images(model), 0.5)
    with pytest.raises(ValueError, match="at least one"):
        model.at_budget()


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))])
def test_a_copy_of_an_executor_has_a_budget_of_its_own(many: Path, copied: Any) -> None:
    model = ssl_dc.load(many)
    x = images(model)
    first = model.at_budget(0.4).compile_gated()
    first(x, 0.8)
    second = copied(first)
    second(x, 0.2)
    for executor in (first, second):
        torch.testing.assert_close(executor(x).macs, model.gated(x, 0.4).macs)


def test_at_budget_is_the_same_model_at_another_budget(many: Path) -> None:
    model = ssl_dc.load(many)
    other = model.at_budget(0.2)
    x = images(model)
    assert other.routes == (ssl_dc.Route.DENSE, ssl_dc.Route.at(0.2))
    assert torch.equal(other.gated(x).features, model.gated(x, 0.2).features)
    assert next(other.parameters()) is next(model.parameters())
    assert model.routes == ssl_dc.Route.BOTH


def test_evaluate_and_cost_take_budgets(many: Path) -> None:
    scores = by_command("evaluate", many, "--budget", "0.2:0.8", "--json")["routes"]
    assert list(scores) == [
        "dense",
        "gated@0.2",
        "gated@0.3",
        "gated@0.4",
        "gated@0.5",
        "gated@0.6",
        "gated@0.7",
        "gated@0.8",
    ]
    ratios = [score["ratio"] for route, score in scores.items() if route != "dense"]
    assert ratios == sorted(ratios)
    cost = by_command("cost", many, "--budget", 0.2, "--json")
    assert cost["ratio"] == pytest.approx(scores["gated@0.2"]["ratio"])
    assert "at a budget of 0.2" in cost["gated_is"]


@pytest.mark.long
def test_a_run_for_one_budget_can_be_dialled_and_says_so(single: Path) -> None:
    model = ssl_dc.load(single)
    before = [gate.thresholds.clone() for gate in gates_of(model)]
    with pytest.warns(DialledWarning, match="trained for a budget of 0.4; its thresholds for 0.7 are set here"):
        other = dialled(model, [0.4, 0.7])
    splits = ssl_dc.open_splits(ssl_dc.build_data_set(model.config))
    train = torch.stack([model.transform(splits.train.image(number)) for number in range(len(splits.train))])
    for budget in (0.4, 0.7):
        assert float(other.gated(train, budget).ratio.mean()) == pytest.approx(budget, abs=0.02)
    assert all(torch.equal(old, gate.thresholds) for old, gate in zip(before, gates_of(model), strict=True))
    result = CliRunner().invoke(main, ["evaluate", str(single), "--budget", "0.7"])
    assert "it has not learned with them" in result.stderr
    assert "gated@0.7" in result.stdout


@pytest.mark.parametrize(
    ("wrong", "words"), [(0.001, "with every gate shut"), (2, "is no budget"), ("x:y", "is no budget")]
)
def test_budgets_that_cannot_be_are_refused_by_name(many: Path, wrong: object, words: str) -> None:
    result = CliRunner().invoke(main, ["evaluate", str(many), "--budget", str(wrong)])
    assert result.exit_code == 2
    assert "--budget" in result.output
    assert words in result.output
    assert "Traceback" not in result.output


def test_a_run_without_gates_has_no_budget(tmp_path: Path) -> None:
    run = ssl_dc.train({**TINY, "gating.name": "none"}, output=tmp_path / "run")
    with pytest.raises(ConfigError, match="has no gates"):
        dialled(run.model, 0.5)


def test_budgets_are_ascending_and_each_once() -> None:
    assert checked_budgets(0.5) == (0.5,)
    assert checked_budgets([0.5, 0.2, 0.5]) == (0.2, 0.5)
    assert checked_budgets([0.3]) == (0.3,)
    assert checked_budgets("0.1:0.3") == (0.1, 0.2, 0.3)


@pytest.mark.long
def test_the_curve_has_a_point_for_each_budget_and_runs_beside_it(many: Path, single: Path, tmp_path: Path) -> None:
    picture = tmp_path / "curve.svg"
    words = ["--protocol", "curve", "--epochs", 3, "--beside", single, "--beside", many, "--output", picture]
    report = by_command("evaluate", many, *words, "--json")
    first, beside, again = report["runs"]
    assert [point["route"] for point in first["points"]] == ["dense", *(f"gated@{budget}" for budget in GRID)]
    assert [point["route"] for point in beside["points"]] == ["dense", "gated"]
    assert first["run"].endswith("4 budgets from 0.2 to 0.8, seed 0 (1)")
    assert again["points"] == first["points"]
    assert first["test_images"] == 40
    knn = by_command("evaluate", many, "--budget", "0.2:0.8", "--json")["routes"]
    for point in first["points"]:
        if point["route"] in knn:
            assert point["knn1"] == knn[point["route"]]["top1"]
            assert point["ratio"] == knn[point["route"]]["ratio"]
    drawn = picture.read_text()
    assert "MACs an image, mean" in drawn
    assert "on 40 held-out images" in drawn
    table = CliRunner().invoke(main, ["evaluate", str(many), "--protocol", "curve", "--epochs", "1"]).stdout
    assert "gated@0.4" in table
    assert "ms an image" not in table


def test_the_curve_in_milliseconds(many: Path) -> None:
    options = {"epochs": 1, "time": True, "seconds": 0.1, "budget": [0.2, 0.8]}
    report = ssl_dc.evaluate(many, "curve", device="cpu", **options)
    points = report.as_json()["runs"][0]["points"]
    assert [point["route"] for point in points] == ["dense", "gated@0.2", "gated@0.8"]
    assert all(point["milliseconds"] > 0 for point in points)
    assert len(report.draw().axes) == 2
    assert "ms an image" in report.tables()[0].columns


@pytest.mark.long
def test_bench_and_export_take_a_budget(many: Path, tmp_path: Path) -> None:
    quick = ("--seconds", 0.1, "--threads", 1, "--images", 8, "--batch", 2, "--runtime", "executor", "--accuracy-images", 0)
    measured, cheaper = (by_command("bench", many, "--budget", budget, *quick, "--json") for budget in (0.8, 0.2))
    assert measured["situations"][0]["cost_ratio"] > cheaper["situations"][0]["cost_ratio"]
    model, x = ssl_dc.load(many), images(ssl_dc.load(many), 2)
    folder = shutil.copytree(many, tmp_path / "run")
    words = ["--route", "gated", "--format", "torch", "--budget", "0.8"]
    assert CliRunner().invoke(main, ["export", str(folder), *words]).exit_code == 0
    features, *_masks = torch.export.load(folder / "gated-at-0.8.pt2").module()(x)
    torch.testing.assert_close(features, model.gated(x, 0.8).features, rtol=1e-4, atol=1e-4)
    refused = CliRunner().invoke(main, ["export", str(many), "--budget", "0.8"])
    assert refused.exit_code == 2
    assert "--route gated" in refused.output


def test_a_budget_beyond_those_of_training_is_warned_of(many: Path, single: Path) -> None:
    for folder, budget, named in (
        (many, 0.9, "0.9, and take those of the nearest one, 0.8;"),
        (single, [0.4, 0.7], "0.7, .*, 0.4;"),
    ):
        model = ssl_dc.load(folder)
        with pytest.warns(DialledWarning, match=f"the gates have no thresholds for a budget of {named}"):
            model.gated(images(model, 2), budget)
        with pytest.warns(DialledWarning):
            model.at_budget(0.95)


def test_a_budget_among_those_of_training_is_not_warned_of(
    many: Path, single: Path, recwarn: pytest.WarningsRecorder
) -> None:
    for folder, budget in ((many, 0.2), (many, [0.8, 0.33]), (single, 0.4)):
        model = ssl_dc.load(folder)
        model.gated(images(model, 2), budget)
        model.gated(images(model, 2))
    assert not [each for each in recwarn if each.category is DialledWarning]


@pytest.mark.long
def test_bench_names_the_largest_budget_for_a_deadline(many: Path, single: Path) -> None:
    words = ["bench", many, "--seconds", 0.1, "--threads", 1, "--images", 4, "--json"]
    easy = by_command(*words, "--at-most", "10s")
    assert easy["budget"] == 0.8
    assert easy["dense_holds"]
    hard = by_command(*words, "--at-most", "0.001us")
    assert hard["budget"] is None
    assert [row["budget"] for row in hard["measured"]] == [0.2]
    table = CliRunner().invoke(main, ["bench", str(many), "--seconds", "0.1", "--images", "4", "--at-most", "0.001us"])
    assert "No budget holds it: even 0.2 takes longer." in table.stdout
    for wrong in (["--at-most", "2"], ["--at-most", "0ms"], ["--at-most", "2ms", "--profile"], ["--at-most", "1e999s"]):
        refused = CliRunner().invoke(main, ["bench", str(many), *wrong])
        assert refused.exit_code == 2
        assert "Traceback" not in refused.output
    assert "train with --budget 0.1:0.9" in CliRunner().invoke(main, ["bench", str(single), "--at-most", "2ms"]).output


@pytest.mark.parametrize("limit", [0.2, 0.21, 0.425, 0.5, 0.79])
def test_the_search_ends_near_the_largest_budget_that_holds(limit: float) -> None:
    found = largest_that_holds(lambda budget: budget <= limit, 0.2, 0.8)
    assert found is not None
    assert limit - 0.6 / 2**HALVINGS - 1e-3 <= found <= limit


def test_the_search_knows_its_ends() -> None:
    assert largest_that_holds(lambda _budget: True, 0.2, 0.8) == 0.8
    assert largest_that_holds(lambda _budget: False, 0.2, 0.8) is None


@pytest.mark.parametrize("command", [("cost",), ("export", "--route", "gated", "--format", "torch"), ("bench",)])
def test_what_has_one_gated_network_takes_one_budget(finished_run: ssl_dc.Run, command: tuple[str, ...]) -> None:
    said = refused(command[0], finished_run.folder, *command[1:], "--budget", "0.5:0.9")
    assert "--budget: one budget is taken here, not 5; call once for each" in said


def test_a_budget_that_is_no_number_is_refused(finished_run: ssl_dc.Run) -> None:
    assert "is no budget" in refused("evaluate", finished_run.folder, "--budget", "0.3,nan,0.31")
