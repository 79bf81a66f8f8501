"""Projections: what is laid out, that it is the same each time, and that pictures are drawn."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from helpers.brief_umap import brief_umap
from ssl_dc.cli import main
from ssl_dc.config import resolve, uniform_layer
from ssl_dc.data.base import Splits
from ssl_dc.data.digits import ArrayImages
from ssl_dc.errors import ConfigError
from ssl_dc.evaluation.drawing import FORMATS, check_drawable, save
from ssl_dc.evaluation.projection import Method, Panel, draw_panels, embedded, project
from ssl_dc.model import Model
from ssl_dc.routes import Route
from ssl_dc.run_folder import RunFolder

SETTINGS = {
    "backbone.width": 4,
    "data.image_size": 8,
    "data.limit": 64,
    "data.test_limit": 40,
    "objective.expander_width": 16,
    "training.workers": 0,
}


@pytest.fixture(scope="module")
def model() -> Model:
    return Model.untrained(resolve([uniform_layer(SETTINGS, "test")]).config)


@pytest.fixture(scope="module")
def run(model: Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = RunFolder.create(tmp_path_factory.mktemp("projection") / "run", model.config)
    folder.save_model(model.encoder)
    return folder.path


def splits(n: int = 48) -> Splits:
    rng = np.random.default_rng(0)
    images = ArrayImages(rng.integers(0, 255, (n, 8, 8, 3), dtype=np.uint8), np.arange(n) % 4)
    return Splits(images, images, images, ("a", "b", "c", "d"))


@pytest.mark.long
@pytest.mark.parametrize("method", ["umap", "tsne"])
def test_neighbours_stay_neighbours_and_the_same_seed_gives_the_same_picture(method: Method) -> None:
    rng = np.random.default_rng(0)
    centres = np.repeat(100 * np.eye(3, 16), 8, axis=0)
    features = (centres + rng.normal(size=(24, 16))).astype(np.float32)
    points = embedded(features, method, seed=3)
    assert points.shape == (24, 2)
    assert points.dtype == np.float32
    distances = np.linalg.norm(points[:, None] - points[None], axis=-1) + 1e9 * np.eye(24)
    assert np.array_equal(distances.argmin(axis=1) // 8, np.arange(24) // 8)
    assert np.array_equal(points, embedded(features, method, seed=3))


@pytest.mark.long
def test_umap_leaves_the_number_of_threads_alone() -> None:
    threads = torch.get_num_threads()
    embedded(np.random.default_rng(0).normal(size=(12, 4)).astype(np.float32), "umap")
    assert torch.get_num_threads() == threads


def test_both_routes_are_laid_out_balanced_over_classes(model: Model) -> None:
    projection = project(model, splits(), "tsne", points=12)
    assert set(projection.routes) == {Route.DENSE, Route.GATED}
    assert np.bincount(projection.labels).tolist() == [3, 3, 3, 3]
    assert {points.shape for points in projection.routes.values()} == {(12, 2)}
    plain = json.loads(json.dumps(projection.as_json(), allow_nan=False))
    assert (plain["protocol"], plain["test_images"]) == ("tsne", 12)
    assert len(plain["routes"]["gated"]) == 12


def test_too_few_images_are_refused(model: Model) -> None:
    with pytest.raises(ConfigError, match="at least 10"):
        project(model, splits(8), "tsne")


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_picture_has_a_panel_for_each_route_and_a_legend(model: Model, suffix: str, tmp_path: Path) -> None:
    figure = project(model, splits(), "tsne", points=12).draw()
    assert [axes.get_ylabel() for axes in figure.axes] == ["dense\nt-SNE 2", "gated\nt-SNE 2"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["a", "b", "c", "d"]
    save(figure, tmp_path / f"picture{suffix}")
    assert (tmp_path / f"picture{suffix}").stat().st_size > 1000


@pytest.mark.parametrize("classes", [4, 15, 100])
def test_several_runs_make_one_figure_a_column_each_a_row_for_each_route(classes: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(classes)
    points = [rng.random((classes, 2)).astype(np.float32) for _ in range(5)]
    figure = draw_panels(
        [
            Panel("t_d = 0.1", {Route.DENSE: points[0], Route.GATED: points[1]}, labels),
            Panel("t_d = 0.5", {Route.DENSE: points[2], Route.GATED: points[3]}, labels),
            Panel("no gates", {Route.DENSE: points[4]}, labels),
        ],
        classes=[str(number) for number in range(classes)],
    )
    assert [axes.get_title() for axes in figure.axes] == ["t_d = 0.1", "t_d = 0.5", "no gates", "", "", ""]
    assert [len(axes.collections) for axes in figure.axes] == [1, 1, 1, 1, 1, 0]
    for axes, drawn in zip(figure.axes, [points[0], points[2], points[4], points[1], points[3]], strict=False):
        assert np.allclose(axes.collections[0].get_offsets(), drawn)
        assert len(np.unique(axes.collections[0].get_facecolors(), axis=0)) == classes
    assert bool(figure.legends) == (classes <= 20)
    save(figure, tmp_path / "figure.png")
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")


def test_rows_stand_as_asked_and_a_title_above_the_first_panel_of_its_column() -> None:
    points = np.zeros((3, 2), dtype=np.float32)
    figure = draw_panels(
        [
            Panel("both", {Route.DENSE: points, Route.GATED: points}, np.arange(3)),
            Panel("no gates", {Route.DENSE: points}, np.arange(3)),
        ],
        rows=[Route.GATED, Route.DENSE],
    )
    assert [axes.get_ylabel() for axes in figure.axes] == ["gated\nUMAP 2", "", "dense\nUMAP 2", "UMAP 2"]
    assert [axes.get_title() for axes in figure.axes] == ["both", "", "", "no gates"]


def test_drawing_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="no panels"):
        draw_panels([])


def test_drawing_leaves_pyplot_alone(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)  # importing it would fail
    project(model, splits(), "tsne", points=12).draw()


def test_missing_extras_are_named_before_anything_is_computed(
    model: Model, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "umap", None)
    monkeypatch.setattr("ssl_dc.evaluation.projection.extract", None)
    with pytest.raises(ConfigError, match=r"pip install 'ssl-dc\[umap\]'"):
        project(model, splits(), "umap")
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ConfigError, match=r"pip install 'ssl-dc\[plots\]'"):
        check_drawable(tmp_path / "x.png")


@pytest.mark.parametrize(("path", "says"), [("x.jpg", "ending"), ("x", "ending"), ("nowhere/x.png", "no folder")])
def test_pictures_that_cannot_be_written_are_refused(path: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=says):
        check_drawable(tmp_path / path)


@pytest.mark.parametrize("protocol", ["umap", "tsne"])
def test_the_command_draws_into_the_run_unless_told_otherwise(
    run: Path, protocol: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    brief_umap(monkeypatch)
    said = CliRunner().invoke(main, ["evaluate", str(run), "--protocol", protocol, "--points", "12"])
    assert said.exit_code == 0, said.stderr
    assert f"{protocol} of held-out" in said.stdout
    assert (run / f"projection-{protocol}.png").read_bytes().startswith(b"\x89PNG")
    elsewhere = tmp_path / "elsewhere.png"
    as_json = CliRunner().invoke(
        main, ["evaluate", str(run), "--protocol", protocol, "--points", "12", "--output", str(elsewhere), "--json"]
    )
    assert json.loads(as_json.stdout)["output"] == str(elsewhere)
    assert elsewhere.stat().st_size > 1000
