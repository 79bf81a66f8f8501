"""Gate statistics, by hand on hand-made masks; the heat map; the command."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import ssl_dc
from ssl_dc.cli import main
from ssl_dc.errors import ConfigError
from ssl_dc.evaluation.drawing import save
from ssl_dc.evaluation.gate_statistics import GateStatistics, draw_gate_map, gate_statistics

TINY = {
    "data.limit": 64,
    "data.test_limit": 40,
    "data.image_size": 8,
    "backbone.width": 4,
    "objective.expander_width": 16,
    "training.epochs": 1,
    "training.batch_size": 32,
    "training.workers": 0,
}
CLASSES = ("cat", "dog", "nobody")


def by_hand() -> GateStatistics:
    """Four images, two of each of two classes; a third class has none."""
    first = np.array([[1, 0, 1, 0], [1, 0, 1, 0], [1, 0, 0, 0], [1, 0, 1, 1]], dtype=bool)
    second = np.array([[1], [0], [1], [1]], dtype=bool)
    return gate_statistics({"a": first, "b": second}, np.array([0, 0, 1, 1]), CLASSES)


def test_rates_by_channel_and_by_class() -> None:
    a, b = by_hand().sites
    assert a.rates.tolist() == [1, 0, 0.75, 0.25]
    assert a.rate == 0.5
    assert a.class_rates[0].tolist() == [1, 0, 1, 0]
    assert a.class_rates[1].tolist() == [1, 0, 0.5, 0.5]
    assert np.isnan(a.class_rates[2]).all()
    assert b.class_rates[:2].tolist() == [[0.5], [1]]


def test_dead_always_on_and_dynamic_channels() -> None:
    statistics = by_hand()
    assert [(site.dead, site.always_on, site.dynamic) for site in statistics.sites] == [(1, 1, 2), (0, 0, 1)]
    assert (statistics.whole.dead, statistics.whole.always_on, statistics.whole.dynamic) == (1, 1, 3)
    assert statistics.whole.channels == 5


def test_distinct_masks_of_a_site_of_all_sites_and_of_a_class() -> None:
    statistics = by_hand()
    a, b = statistics.sites
    assert (a.distinct_masks, a.class_distinct_masks.tolist(), a.distinct_masks_a_class) == (3, [1, 2, 0], 1.5)
    assert (b.distinct_masks, b.class_distinct_masks.tolist(), b.distinct_masks_a_class) == (2, [2, 1, 0], 1.5)
    # side by side the two cats differ, by b alone
    assert (statistics.whole.distinct_masks, statistics.whole.class_distinct_masks.tolist()) == (4, [2, 2, 0])


def test_distinct_masks_as_numpy_counts_them() -> None:
    masks = np.random.default_rng(0).random((500, 11)) < 0.2  # a width that does not fill bytes
    [site] = gate_statistics({"a": masks}, np.zeros(500, dtype=np.int64), ("one",)).sites
    assert site.distinct_masks == len(np.unique(masks, axis=0))


@pytest.mark.parametrize(("on", "dead", "always_on"), [(0, 1, 0), (1, 1, 0), (2, 0, 0), (198, 0, 0), (199, 0, 1)])
def test_the_limits_are_one_and_ninety_nine_percent_of_the_images(on: int, dead: int, always_on: int) -> None:
    masks = (np.arange(200) < on)[:, None]
    [site] = gate_statistics({"a": masks}, np.zeros(200, dtype=np.int64), ("one",)).sites
    assert (site.dead, site.always_on) == (dead, always_on)


def test_what_has_no_statistics_is_refused() -> None:
    labels = np.zeros(3, dtype=np.int64)
    for masks in ({}, {"a": np.ones((2, 4), bool)}):
        with pytest.raises(ValueError, match="at least one"):
            gate_statistics(masks, labels, ("one",))
    with pytest.raises(ValueError, match="at least one"):
        gate_statistics({"a": np.ones((0, 4), bool)}, labels[:0], ("one",))


def test_json_has_everything_and_null_for_a_class_without_images() -> None:
    plain = json.loads(json.dumps(by_hand().as_json(), allow_nan=False))
    assert plain["test_images"] == 4
    assert plain["classes"] == list(CLASSES)
    assert [site["site"] for site in plain["sites"]] == ["a", "b"]
    assert plain["sites"][0]["channel_rates"] == [1, 0, 0.75, 0.25]
    assert plain["sites"][0]["class_channel_rates"] == [[1, 0, 1, 0], [1, 0, 0.5, 0.5], None]
    assert plain["sites"][0]["class_distinct_masks"] == [1, 2, 0]
    assert (plain["all"]["channels"], plain["all"]["distinct_masks"]) == (5, 4)


@pytest.mark.parametrize("classes", [2, 40])
def test_the_heat_map_has_a_panel_for_each_site_and_one_for_neighbouring_single_gates(classes: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    masks = {name: rng.random((80, width)) < 0.5 for name, width in (("a", 4), ("b", 1), ("c", 1), ("d", 6))}
    statistics = gate_statistics(masks, np.arange(80) % classes, tuple(str(number) for number in range(classes)))
    figure = draw_gate_map(statistics)
    panels = [axes for axes in figure.axes if axes.get_title(loc="left")]
    assert [panel.images[0].get_array().shape for panel in panels] == [(classes, 4), (classes, 2), (classes, 6)]
    assert np.array_equal(panels[0].images[0].get_array(), statistics.sites[0].class_rates)
    save(figure, tmp_path / "map.png")
    assert (tmp_path / "map.png").read_bytes().startswith(b"\x89PNG")


@pytest.fixture(scope="module")
def run(run_of_eight_steps: Path) -> Path:
    return run_of_eight_steps


def test_statistics_of_a_run_agree_with_its_masks(run: Path) -> None:
    statistics = ssl_dc.evaluate(run, "gates")
    model = ssl_dc.load(run)
    assert statistics.images == 40
    assert {site.site: site.channels for site in statistics.sites} == dict(model.cost.channels)
    for site in (*statistics.sites, statistics.whole):
        assert site.dead + site.always_on + site.dynamic == site.channels
        assert 1 <= site.distinct_masks <= 40
        assert site.distinct_masks <= site.class_distinct_masks.sum()


@pytest.mark.long
def test_the_command_prints_a_table_and_draws_only_when_asked(run: Path, tmp_path: Path) -> None:
    before = sorted(run.rglob("*"))
    printed = CliRunner().invoke(main, ["evaluate", str(run), "--protocol", "gates"])
    assert printed.exit_code == 0
    assert "stages.layer4.1.hidden" in printed.stdout
    assert "picture" not in printed.stdout
    assert sorted(run.rglob("*")) == before
    picture = tmp_path / "map.png"
    drawn = CliRunner().invoke(main, ["evaluate", str(run), "--protocol", "gates", "--json", "--output", str(picture)])
    assert json.loads(drawn.stdout)["output"] == str(picture)
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_a_run_without_gates_is_refused(tmp_path: Path) -> None:
    folder = ssl_dc.train({**TINY, "gating.name": "none"}, output=tmp_path / "run").folder
    with pytest.raises(ConfigError, match="no gates"):
        ssl_dc.evaluate(folder, "gates")
