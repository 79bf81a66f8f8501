"""What pictures say, and that nothing in a class's name, a notebook's settings or collapsed features breaks them."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.forked import run_forked
from helpers.settings import TINY
from ssl_dc.assemble import build_data_set
from ssl_dc.config import resolve, uniform_layer
from ssl_dc.data.subsets import open_splits
from ssl_dc.evaluation.drawing import described_run, save
from ssl_dc.evaluation.gate_statistics import GatedRun, GateStatistics, gate_statistics
from ssl_dc.evaluation.lettering import LONGEST, Lettering
from ssl_dc.evaluation.projection import Method, Projection, embedded, project
from ssl_dc.model import Model
from ssl_dc.routes import Route

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from matplotlib.font_manager import FontEntry

RUN = "digits, vicreg, dgnet at budget 0.3, seed 0"
NAMES = {
    "a formula": "$\\frac{1}{2$",
    "prices": "US$ 5 to $10",
    "control characters": "two\nlines\x1b[2J\x00",
    "an underscore first": "_background",
    "nothing": "",
    "braces": "{not} a \\command",
    "right to left": "\u0634\u062c\u0631\u0629",
    "a private character": "\ue000",
    "long": "a name that goes on and on " * 20,
}


def projection(classes: tuple[str, ...], n: int = 60) -> Projection:
    rng = np.random.default_rng(0)
    points = {route: rng.normal(size=(n, 2)).astype(np.float32) for route in Route.BOTH}
    labels = np.arange(n) % max(1, len(classes))
    knn1 = {Route.DENSE: 91.25, Route.GATED: 72.0} if classes else {}
    return Projection("tsne", RUN, 0, points, {Route.DENSE: 1.0, Route.GATED: 0.298}, knn1, labels, classes)


def gates(classes: tuple[str, ...]) -> GateStatistics:
    masks = {"stages.layer1.0.hidden": np.random.default_rng(0).random((60, 8)) < 0.5}
    found = gate_statistics(masks, np.arange(60) % len(classes), classes)
    return GateStatistics(
        found.images, found.classes, found.sites, found.whole, GatedRun(RUN, "60 held-out images", 0.298, 72.0)
    )


def drawn(figure: Figure, path: Path) -> bytes:
    """The picture; what matplotlib warns of, such as characters without a glyph, is an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        save(figure, path)
    return path.read_bytes()


def test_titles_say_run_route_cost_and_accuracy() -> None:
    figure = projection(("cat", "dog")).draw()
    assert figure.get_suptitle() == f"t-SNE of 60 held-out images\n{RUN}"
    assert [axes.get_title() for axes in figure.axes] == [
        "dense, cost 1.00, kNN-1 91.2 %",
        "gated, cost 0.30, kNN-1 72.0 %",
    ]
    assert {axes.get_xlabel() for axes in figure.axes} == {"t-SNE 1"}
    assert [axes.get_ylabel() for axes in figure.axes] == ["dense\nt-SNE 2", "gated\nt-SNE 2"]
    heat = gates(("cat", "dog")).draw()
    assert heat.get_suptitle() == f"Gates on 60 held-out images\n{RUN}: gated, cost 0.30, kNN-1 72.0 %"
    assert [axes.get_xlabel() for axes in heat.axes[:1]] == ["channel"]
    assert [axes.get_ylabel() for axes in heat.axes] == ["class", "share of images, on"]


def test_a_run_is_described_by_what_it_is_told_apart_by() -> None:
    config = resolve([uniform_layer({"data.name": "digits", "seed": 3}, "test")]).config
    assert described_run(config) == "digits, vicreg, dgnet at budget 0.3, seed 3"
    dense = resolve([uniform_layer({"data.name": "digits", "gating.name": "none"}, "test")]).config
    assert described_run(dense) == "digits, vicreg, none, seed 0"


@pytest.mark.parametrize("classes", [2, 20])
def test_the_legend_stands_beside_the_data(classes: int) -> None:
    figure = projection(tuple(f"class number {number}" for number in range(classes))).draw()
    figure.draw_without_rendering()
    legend = figure.legends[0].get_window_extent()
    for axes in figure.axes:
        assert axes.get_window_extent().x1 <= legend.x0
        assert axes.get_window_extent().x0 >= 0
    assert legend.x1 <= figure.bbox.x1


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_names_do_not_break_a_picture(name: str, tmp_path: Path) -> None:
    classes = (name, "plain")
    figure = projection(classes).draw()
    assert drawn(figure, tmp_path / "points.png").startswith(b"\x89PNG")
    shown = [text.get_text() for text in figure.legends[0].get_texts()]
    assert len(shown) == 2
    assert shown[1] == "plain"
    assert "\n" not in shown[0]
    assert "\x1b" not in shown[0]
    assert drawn(gates(classes).draw(), tmp_path / "gates.pdf").startswith(b"%PDF")


@pytest.mark.long
@settings(deadline=None, max_examples=8)
@given(st.text(st.characters(codec="utf-8"), max_size=60))
def test_no_name_at_all_breaks_a_picture(name: str) -> None:
    lettering = Lettering([name])
    shown = lettering.text(name)
    assert len(shown.replace("\\u", "").replace("\\U", "")) <= 9 * LONGEST
    figure = gates((name, "plain")).draw()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure.draw_without_rendering()


CUNEIFORM = "\U00012000"


@pytest.fixture
def fonts(monkeypatch: pytest.MonkeyPatch) -> list[FontEntry]:
    """The fonts that there are, to be changed: the usual one alone."""
    from matplotlib.font_manager import fontManager

    usual = [entry for entry in fontManager.ttflist if entry.name == "DejaVu Sans"]
    monkeypatch.setattr(fontManager, "ttflist", usual)
    return usual


def test_a_character_that_no_font_has_is_written_out(fonts: list[FontEntry], tmp_path: Path) -> None:
    assert Lettering([CUNEIFORM]).text(f"{CUNEIFORM} x") == "\\U00012000 x"
    assert drawn(projection((CUNEIFORM, "plain")).draw(), tmp_path / "points.png")


def test_a_script_is_taken_from_a_font_that_has_it(fonts: list[FontEntry], tmp_path: Path) -> None:
    from matplotlib.font_manager import ttfFontProperty
    from matplotlib.ft2font import FT2Font

    fonts.append(ttfFontProperty(FT2Font(str(a_font("Rare Script", CUNEIFORM, tmp_path / "rare.ttf")))))
    lettering = Lettering([f"{CUNEIFORM} and more"])
    assert lettering.families[-1] == "Rare Script"
    assert lettering.text(CUNEIFORM) == CUNEIFORM
    assert drawn(projection((CUNEIFORM, "plain")).draw(), tmp_path / "points.png")


def a_font(family: str, character: str, path: Path) -> Path:
    """A font that has one character, a square."""
    from fontTools.fontBuilder import FontBuilder
    from fontTools.pens.ttGlyphPen import TTGlyphPen

    def square(size: int) -> object:
        pen = TTGlyphPen(None)
        pen.moveTo((0, 0))
        for corner in ((0, size), (size, size), (size, 0)):
            pen.lineTo(corner)
        pen.closePath()
        return pen.glyph()

    builder = FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder([".notdef", "rare"])
    builder.setupCharacterMap({ord(character): "rare"})
    builder.setupGlyf({".notdef": square(1), "rare": square(700)})
    builder.setupHorizontalMetrics({".notdef": (700, 0), "rare": (700, 0)})
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable({"familyName": family, "styleName": "Regular"})
    builder.setupOS2()
    builder.setupPost()
    builder.save(path)
    return path


def test_without_labels_points_have_one_colour_and_no_legend(tmp_path: Path) -> None:
    figure = projection(()).draw()
    assert figure.legends == []
    assert len(np.unique(figure.axes[0].collections[0].get_facecolors(), axis=0)) == 1
    assert [axes.get_title() for axes in figure.axes] == ["dense, cost 1.00", "gated, cost 0.30"]
    assert drawn(figure, tmp_path / "points.svg")


# collapsed features; notebooks


@pytest.mark.parametrize("method", ["tsne", "umap"])
@pytest.mark.parametrize("value", [0.0, 0.5, -3e20])
def test_features_that_are_all_the_same_are_one_point(method: Method, value: float) -> None:
    equal = np.full((100, 64), value, np.float32)
    almost = equal * (1 + 1e-7 * np.random.default_rng(0).normal(size=equal.shape)).astype(np.float32)
    for features in (equal, almost):
        assert np.array_equal(embedded(features, method), np.zeros((100, 2)))


def test_a_collapsed_route_is_named_in_table_picture_and_json(tmp_path: Path) -> None:
    found = replace(projection(("cat", "dog")), collapsed=(Route.GATED,))
    assert "THE gated ROUTE HAS COLLAPSED" in found.tables()[0].note
    figure = found.draw()
    assert [axes.get_title() for axes in figure.axes][1] == "gated, cost 0.30, kNN-1 72.0 %, COLLAPSED"
    assert drawn(figure, tmp_path / "points.png")
    assert found.as_json()["collapsed"] == ["gated"]


def test_a_collapsed_encoder_can_be_looked_at() -> None:
    model = Model.untrained(resolve([uniform_layer(TINY, "test")]).config)
    with torch.no_grad():
        for parameter in model.encoder.parameters():
            parameter.zero_()
    splits = open_splits(build_data_set(model.config))
    found = project(model, splits, "tsne", points=20)
    assert found.collapsed == Route.BOTH
    assert all(not points.any() for points in found.routes.values())


@pytest.mark.long
def test_the_size_of_features_does_not_matter() -> None:
    """In a process of its own: t-SNE of very small numbers has ended the process."""
    program = (
        "import numpy as np; from ssl_dc.evaluation.projection import embedded;"
        " f = np.random.default_rng(0).normal(size=(40, 8));"
        " p = [embedded((s * f).astype(np.float32), 'tsne') for s in (1e-30, 1, 1e30)];"
        " print(np.isfinite(p).all(), (np.std(p, axis=1) > 1e-3).all())"
    )
    said = run_forked(program)
    assert said.stdout.split() == ["True", "True"], said.stderr[-500:]


def test_a_notebooks_backend_that_is_not_here_does_not_matter(tmp_path: Path) -> None:
    program = (
        "import os, sys; from ssl_dc.evaluation.drawing import check_drawable, new_figure, save; from pathlib import Path;"
        " check_drawable(Path('x.png')); save(new_figure(2, 2), Path('x.png'));"
        " print(os.environ['MPLBACKEND'], 'matplotlib.pyplot' in sys.modules)"
    )
    backend = "module://matplotlib_inline.backend_inline"
    environment = {**os.environ, "MPLBACKEND": backend}
    said = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300
    )
    assert said.stdout.split() == [backend, "False"], said.stderr[-500:]
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")
