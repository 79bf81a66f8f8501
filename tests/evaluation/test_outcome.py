"""What a run reports at its end, with and without labels."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from sklearn.datasets import load_digits

import ssl_dc
from ssl_dc.assemble import build_data_set
from ssl_dc.config import resolve, uniform_layer
from ssl_dc.data.subsets import open_splits
from ssl_dc.errors import DataError
from ssl_dc.evaluation.knn import score_knn
from ssl_dc.evaluation.outcome import Outcome, RouteOutcome, advice, outcome
from ssl_dc.evaluation.paired import Difference, difference
from ssl_dc.evaluation.scores import extract_splits
from ssl_dc.model import Model
from ssl_dc.routes import Route

TINY: dict[str, Any] = {
    "data.image_size": 8,
    "backbone.width": 4,
    "backbone.stem": "cifar",
    "objective.expander_width": 16,
    "training.batch_size": 16,
    "training.epochs": 1,
    "training.workers": 0,
}
DIGITS = {**TINY, "data.limit": 32, "data.test_limit": 40}


@pytest.fixture(scope="module")
def unlabelled(tmp_path_factory: pytest.TempPathFactory) -> ssl_dc.Run:
    """A run on a folder of handwritten digits without classes. They differ enough for gates to meet a budget."""
    folder = tmp_path_factory.mktemp("outcome")
    (folder / "data" / "train").mkdir(parents=True)
    for number, pixels in enumerate(load_digits().images[:600]):
        Image.fromarray((15 * pixels).astype(np.uint8)).save(folder / "data" / "train" / f"{number}.png")
    return ssl_dc.train({**TINY, "data.name": "folder", "data.root": str(folder / "data")}, output=folder / "run")


def test_untrained_accuracy_is_that_of_the_network_training_started_from(tmp_path: Path) -> None:
    run = ssl_dc.train(DIGITS, output=tmp_path / "run")
    splits = open_splits(build_data_set(run.model.config))
    before = score_knn(extract_splits(Model.untrained(run.model.config), splits))
    after = score_knn(extract_splits(run.model, splits))
    for route in (Route.DENSE, Route.GATED):
        reached = run.outcome.routes[route]
        assert reached.knn1 == after.routes[route].top1
        assert reached.knn1_untrained == before.routes[route].top1
        assert (reached.macs, reached.ratio) == (after.routes[route].macs, after.routes[route].ratio)
    assert run.outcome.measured_on == "40 held-out images"
    assert json.loads((run.folder / "result.json").read_text()) == run.outcome.as_json()


def test_an_untrained_network_reaches_what_it_reaches_untrained() -> None:
    config = resolve([uniform_layer(DIGITS, "test")]).config
    found = outcome(config, Model.untrained(config), open_splits(build_data_set(config)))
    for reached in found.routes.values():
        assert reached.knn1 == reached.knn1_untrained


def test_without_labels_there_is_a_cost_but_no_accuracy(unlabelled: ssl_dc.Run) -> None:
    found = unlabelled.outcome
    assert set(found.routes) == {Route.DENSE, Route.GATED}
    for reached in found.routes.values():
        assert reached.knn1 is None
        assert reached.knn1_untrained is None
    assert found.routes[Route.DENSE].ratio == 1
    assert 0 < found.routes[Route.GATED].ratio_error < 0.02
    assert found.budget_holds
    assert found.routes[Route.GATED].macs == pytest.approx(found.routes[Route.GATED].ratio * found.dense_macs)
    assert found.measured_on.endswith("held-out images")
    json.dumps(found.as_json(), allow_nan=False)


def test_without_labels_the_end_says_so_and_how_to_evaluate(unlabelled: ssl_dc.Run) -> None:
    assert "There are no labels here that could tell whether training helped." in unlabelled.outcome.findings
    assert any("--eval-data" in tip for tip in unlabelled.outcome.advice)
    assert unlabelled.outcome.knn1_pixels is None


def test_without_labels_the_table_has_no_columns_of_accuracy(unlabelled: ssl_dc.Run) -> None:
    (table,) = unlabelled.outcome.tables()
    assert table.columns == ("route", "MACs an image", "share of dense cost")
    assert {len(row) for row in table.rows} == {3}
    assert "kNN" not in table.title


def test_the_commands_of_the_advice_name_the_run_and_can_be_pasted(unlabelled: ssl_dc.Run) -> None:
    folder = Path("runs") / "of my dog's pictures"
    commands = [tip.partition(": ")[2] for tip in unlabelled.outcome.at(folder).advice]
    words = [shlex.split(command) for command in commands if command.startswith("ssl-dc ")]
    assert [each[1] for each in words] == ["report", "evaluate", "embed", "export"]
    assert all(each[2] == str(folder) for each in words)
    kept = json.loads((unlabelled.folder / "result.json").read_text())["advice"]
    assert any("ssl-dc report RUN" in tip for tip in kept)  # a run may be moved
    assert f"ssl-dc report {shlex.quote(str(unlabelled.folder))}" in unlabelled._repr_html_()


def test_without_labels_the_run_can_be_loaded(unlabelled: ssl_dc.Run) -> None:
    assert ssl_dc.load(unlabelled.folder).feature_dim == 32


@pytest.mark.parametrize("protocol", ["knn", "linear"])
def test_without_labels_an_evaluation_says_what_it_lacks(unlabelled: ssl_dc.Run, protocol: Any) -> None:
    with pytest.raises(DataError, match="labels"):
        ssl_dc.evaluate(unlabelled.folder, protocol)


# an honest end


def test_raw_pixels_are_those_that_the_network_sees() -> None:
    config = resolve([uniform_layer({**DIGITS, "data.image_size": 24}, "test")]).config
    model, splits = Model.untrained(config), open_splits(build_data_set(config))
    found = outcome(config, model, splits)

    def pixels(images: Any) -> Any:
        x = torch.stack([model.transform(images.image(number)) for number in range(len(images))])
        return F.adaptive_avg_pool2d(x, 16).flatten(1).double().numpy()

    train, test = pixels(splits.evaluation_train), pixels(splits.test)
    nearest = ((test[:, None] - train) ** 2).sum(axis=2).argmin(axis=1)
    assert splits.evaluation_train.labels is not None
    expected = 100 * np.mean(splits.evaluation_train.labels[nearest] == splits.test.labels)
    assert found.knn1_pixels == pytest.approx(expected)


def by_hand(labels: Any, predicted: Any, other: Any) -> tuple[float, float]:
    """The difference in points, and its error from image by image differences, with half an image in each cell."""
    d = (predicted == labels).astype(float) - (other == labels)
    values, weights = (
        np.array([1.0, -1.0, 0.0]),
        np.array([(d == 1).sum() + 0.5, (d == -1).sum() + 0.5, (d == 0).sum() + 1]),
    )
    mean = (values * weights).sum() / weights.sum()
    variance = (weights * (values - mean) ** 2).sum() / weights.sum()
    return 100 * d.mean(), 100 * np.sqrt(variance / weights.sum())


@given(st.integers(1, 400), st.integers(0, 2**32 - 1))
def test_a_difference_is_paired_image_by_image(n: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels, predicted, other = (rng.integers(0, 3, n) for _ in range(3))
    found = difference(labels, predicted, other)
    assert (found.points, found.standard_error) == pytest.approx(by_hand(labels, predicted, other))
    assert found.standard_error > 0
    reverse = difference(labels, other, predicted)
    assert (reverse.points, reverse.verdict) == (-found.points, -found.verdict)


def test_the_standard_error_is_what_draws_of_images_spread_by() -> None:
    rng = np.random.default_rng(0)
    spread, errors = [], []
    for _ in range(400):
        both = rng.random(300) < 0.5
        right, other = both | (rng.random(300) < 0.3), both | (rng.random(300) < 0.2)
        found = difference(np.ones(300, np.int64), right.astype(np.int64), other.astype(np.int64))
        spread.append(found.points)
        errors.append(found.standard_error)
    assert np.mean(errors) == pytest.approx(np.std(spread), rel=0.1)


@pytest.mark.parametrize(("points", "verdict"), [(5.0, 1), (1.9, 0), (0.0, 0), (-1.9, 0), (-2.1, -1)])
def test_a_difference_counts_from_two_standard_errors_on(points: float, verdict: int) -> None:
    assert Difference(points, 1.0).verdict == verdict


def ended(dense: float, gated: float, pixels: float = 10.0, paid: float = 0.3) -> Outcome:
    """The end of a run whose routes differ by so many points from the untrained network; one point is the error."""
    routes = {
        route: RouteOutcome(50.0 + gain, 50.0, Difference(gain, 1.0), Difference(pixels, 1.0), 10.0, ratio)
        for route, gain, ratio in ((Route.DENSE, dense, 1.0), (Route.GATED, gated, paid))
    }
    return Outcome(routes, "360 held-out images", 10, 0.3, 40.0)


def config(**settings: Any) -> ssl_dc.RunConfig:
    return resolve([uniform_layer({key.replace("__", "."): value for key, value in settings.items()}, "test")]).config


@pytest.mark.parametrize(
    ("paid", "error", "says"),
    [
        (0.38, 0.07, "0.3800 ± 0.0700 is paid: these are too few images to tell whether it holds."),
        (0.29, 0.02, "these are too few images"),
        (0.29, 0.01, "it holds."),
        (0.50, 0.02, "IT IS MISSED."),
    ],
)
def test_a_few_images_do_not_tell_whether_the_budget_holds(paid: float, error: float, says: str) -> None:
    dense, gated = (RouteOutcome(50.0, 50.0, None, None, 10.0, ratio) for ratio in (1.0, paid))
    found = Outcome({Route.DENSE: dense, Route.GATED: replace(gated, ratio_error=error)}, "4 images", 10, 0.3)
    assert says in found.findings[-1]


@pytest.mark.parametrize(
    ("found", "findings", "next_steps"),
    [
        (ended(9, 7), ["training helped (+9.00 ± 1.00 points); better than raw pixels", "it holds"], ["--protocol linear"]),
        (ended(9, 1), ["gated: NO DIFFERENCE by training is seen (+1.00 ± 1.00 points)"], ["gated route lags behind"]),
        (ended(9, -33), ["gated: TRAINING MADE IT WORSE (-33.00 ± 1.00 points)"], ["from the gated features: lower --lr"]),
        (
            ended(-3, -3, -5),
            ["WORSE than raw pixels (-5.00 ± 1.00)"],
            ["the dense and the gated features", "raw pixels beat"],
        ),
        (
            ended(9, 7, paid=0.5),
            ["0.3 of the dense cost was asked for, 0.5000 ± 0.0000 is paid: IT IS MISSED"],
            ["ask for 0.50"],
        ),
    ],
)
def test_the_end_says_whether_training_helped_and_what_to_try(
    found: Outcome, findings: list[str], next_steps: list[str]
) -> None:
    said, tips = "\n".join(found.findings), "\n".join(advice(found, config(), 5000))
    for words in findings:
        assert words in said
    for words in next_steps:
        assert words in tips
    assert "steps are few" not in tips


@pytest.mark.parametrize(("paid", "error", "holds"), [(0.31, 0.0, True), (0.33, 0.01, False), (0.33, 0.02, True)])
def test_the_budget_holds_within_its_tolerance_or_two_standard_errors(paid: float, error: float, holds: bool) -> None:
    found = ended(9, 9, paid=paid)
    gated = replace(found.routes[Route.GATED], ratio_error=error)
    assert replace(found, routes={**found.routes, Route.GATED: gated}).budget_holds is holds


def test_few_steps_are_named_where_training_did_not_help() -> None:
    assert any("36 steps are few" in tip and "--batch-size" in tip for tip in advice(ended(1, 1), config(), 36))
    assert not any("steps are few" in tip for tip in advice(ended(9, 9), config(), 36))


def test_a_penalty_that_misses_the_budget_is_to_be_adaptive() -> None:
    tips = advice(ended(9, 9, paid=0.5), config(budget__control="penalty"), 5000)
    assert "hold the gates to the budget: --budget-control adaptive." in tips


def test_the_table_and_the_json_carry_the_same_words(tmp_path: Path) -> None:
    run = ssl_dc.train(DIGITS, output=tmp_path / "run")
    [table] = run.outcome.tables()
    plain = run.outcome.as_json()
    for sentence in (*plain["findings"], *plain["advice"]):
        assert sentence in table.note
    assert plain["advice"]
    assert plain["budget_holds"] is True
    assert set(plain["routes"]["gated"]["over_untrained"]) == {"points", "standard_error"}
