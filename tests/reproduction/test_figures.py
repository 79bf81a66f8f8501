"""``ssl-dc reproduce figure2`` as a user calls it: real, tiny trainings on the digits."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pytest
from click.testing import Result

from helpers.brief_umap import brief_umap
from helpers.command_line import call, successful
from helpers.settings import TINY
from ssl_dc import api
from ssl_dc.evaluation.drawing import save
from ssl_dc.reproduction.plan import SCALES
from ssl_dc.routes import Route

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SMALL = {
    **TINY,
    "data.limit": 48,
    "data.test_limit": 20,
    "objective.expander_width": 8,
    "training.epochs": 2,
    "gating.noise": 0.0,
}
DUAL, BASELINE1 = "small-digits-dual-0.5-seed0", "small-digits-baseline1-seed0"
PICTURES = ["figure2-digits-small.png", f"gates-{DUAL}.png"]


def make_tiny(patch: pytest.MonkeyPatch) -> None:
    """Make trainings and pictures a matter of a second."""
    patch.setitem(SCALES, "small", SMALL)
    brief_umap(patch)


@pytest.fixture(autouse=True)
def tiny_scale(monkeypatch: pytest.MonkeyPatch) -> None:
    make_tiny(monkeypatch)


def reproduce(output: Path, name: str = "figure2", *options: str) -> Result:
    return call("reproduce", name, "--dataset", "digits", "--budgets", "0.5", "--output", output, *options)


def steps(result: Result) -> list[str]:
    """What was done, from the progress, such as ``train small-digits-dual-0.5-seed0``."""
    return [line.partition("] ")[2] for line in result.stderr.splitlines() if line.startswith("[")]


class Made(NamedTuple):
    output: Path
    result: Result
    drawn: dict[str, Figure]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Figure 2, whole. Tests that change the folder work on a copy."""
    output: Path = tmp_path_factory.mktemp("figures") / "made"
    drawn: dict[str, Figure] = {}

    def kept(figure: Figure, path: Path) -> None:
        drawn[path.name] = figure
        save(figure, path)

    with pytest.MonkeyPatch.context() as patch:
        make_tiny(patch)
        patch.setattr("ssl_dc.reproduction.figures.save", kept)
        return Made(output, successful(reproduce(output)), drawn)


@pytest.fixture
def copied(made: Made, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made.output, tmp_path / "copy"))


@pytest.mark.long
def test_what_is_missing_is_trained_and_the_paths_go_to_standard_output(made: Made) -> None:
    assert steps(made.result) == [
        f"train {DUAL}",
        f"umap {DUAL}",
        f"gates {DUAL}",
        f"train {BASELINE1}",
        f"umap {BASELINE1}",
    ]
    assert made.result.stdout.splitlines() == [str(made.output / name) for name in PICTURES]
    for name in PICTURES:
        assert (made.output / name).read_bytes().startswith(b"\x89PNG")
    # two seeds are the default; the figure says which one it draws
    assert {path.name for path in (made.output / "runs").iterdir()} == {DUAL, BASELINE1}
    assert "(digits, small scale, seed 0)" in made.result.stderr


@pytest.mark.long
def test_figure_has_a_column_for_each_run_and_the_gated_route_on_top(made: Made) -> None:
    figure = made.drawn[PICTURES[0]]
    top_dual, empty, dense_dual, dense_baseline1 = figure.axes
    assert [axes.get_ylabel() for axes in figure.axes] == ["gated\nUMAP 2", "", "dense\nUMAP 2", "UMAP 2"]
    assert top_dual.get_title() == "VICReg-Dual\nbudget 0.5\ngated, cost 0.50, kNN-1 25.0 %"
    assert dense_baseline1.get_title() == "VICReg (Baseline-1)\ndense, cost 1.00, kNN-1 25.0 %"
    assert not empty.collections
    for run, panels in [
        (DUAL, {Route.GATED: top_dual, Route.DENSE: dense_dual}),
        (BASELINE1, {Route.DENSE: dense_baseline1}),
    ]:
        expected = api.evaluate(made.output / "runs" / run, "umap")
        assert set(expected.routes) == set(panels)
        for route, axes in panels.items():
            assert np.allclose(axes.collections[0].get_offsets(), expected.routes[route])
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [str(digit) for digit in range(10)]


@pytest.mark.long
def test_gate_map_is_that_of_the_run(made: Made) -> None:
    figure = made.drawn[PICTURES[1]]
    expected = api.evaluate(made.output / "runs" / DUAL, "gates")
    shown = [axes.images[0].get_array() for axes in figure.axes if axes.images]
    assert len(shown) == len(expected.sites)
    for image, site in zip(shown, expected.sites, strict=True):
        assert np.allclose(image, site.class_rates)
    assert "VICReg-Dual, budget 0.5" in str(figure.get_suptitle())


@pytest.mark.long
def test_a_second_call_trains_nothing_and_draws_the_same(copied: Path, made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in PICTURES:
        (copied / name).unlink()
    monkeypatch.setattr(api, "train", lambda *_args, **_kwargs: pytest.fail("what was done was trained again"))
    again = successful(reproduce(copied))
    assert steps(again) == [f"umap {DUAL}", f"gates {DUAL}", f"umap {BASELINE1}"]
    for name in PICTURES:
        assert (copied / name).read_bytes() == (made.output / name).read_bytes()


@pytest.mark.long
def test_a_table_takes_the_runs_of_the_figure(copied: Path) -> None:
    table = successful(reproduce(copied, "table4", "--seeds", "1"))
    double = "small-digits-dual-2x-0.5-seed0"
    assert steps(table) == [f"evaluate {DUAL}: knn1", f"train {double}", f"evaluate {double}: knn1"]
    known = json.loads((copied / "results" / f"{DUAL}.json").read_text(encoding="utf-8"))
    assert known["images_per_second"] > 0
    assert set(known["knn1"]) == {"dense", "gated"}


@pytest.mark.long
def test_dry_run_asks_for_the_weights_not_for_results(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "umap", None)  # nothing is drawn, so nothing is needed
    assert "2 runs, 2 done" in successful(reproduce(copied, "figure2", "--dry-run")).stdout
    shutil.rmtree(copied / "runs" / BASELINE1)
    before = sorted(copied.rglob("*"))
    result = successful(reproduce(copied, "figure2", "--dry-run"))
    assert "2 runs, 1 done" in result.stdout
    assert result.stderr == ""
    assert sorted(copied.rglob("*")) == before


@pytest.mark.long
def test_a_run_made_with_other_settings_is_refused(copied: Path) -> None:
    config = copied / "runs" / DUAL / "config.json"
    config.write_text(config.read_text().replace('"epochs": 2', '"epochs": 7'), encoding="utf-8")
    result = reproduce(copied)
    assert result.exit_code == 2
    assert f"{config} was made with other settings: training.epochs = 7, now 2" in result.stderr


@pytest.mark.parametrize(("module", "extra"), [("umap", "umap"), ("matplotlib.figure", "plots")])
def test_what_drawing_needs_is_asked_for_before_anything_is_trained(
    module: str, extra: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    result = reproduce(tmp_path / "out")
    assert result.exit_code == 2
    assert f"pip install 'ssl-dc[{extra}]'" in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "said"),
    [(["--to", "stl10"], "figure2 does not transfer to another data set"), (["--budgets", "1.5"], "budget.target")],
)
def test_wrong_call_is_one_message_and_exit_status_2(options: list[str], said: str, tmp_path: Path) -> None:
    result = reproduce(tmp_path / "out", "figure2", *options)
    assert result.exit_code == 2
    assert said in result.stderr
    assert "Traceback" not in result.stderr
    assert list(tmp_path.iterdir()) == []
