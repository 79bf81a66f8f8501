"""Results in notebooks: as tables of HTML, and as data frames."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any
from xml.etree import ElementTree

import pytest

import ssl_dc
from ssl_dc.evaluation.cost import cost_of_run

pandas = pytest.importorskip("pandas")


def test_a_run_is_its_logged_steps(finished_run: ssl_dc.Run) -> None:
    frame = finished_run.to_frame()
    assert frame["step"].tolist() == [1, 2]
    assert {"loss", "lr", "cost_ratio", "terms/variance"} <= set(frame.columns)


def test_an_outcome_has_a_row_for_each_route(finished_run: ssl_dc.Run) -> None:
    frame = finished_run.outcome.to_frame().set_index("route")
    for route, reached in finished_run.outcome.routes.items():
        assert reached.over_untrained is not None
        row = frame.loc[str(route)]
        assert (row["knn1"], row["macs"], row["over_untrained"]) == (
            reached.knn1,
            reached.macs,
            reached.over_untrained.points,
        )


@pytest.mark.parametrize(
    ("protocol", "options", "columns", "rows"),
    [
        ("knn", {}, ["route", "top1", "std", "macs", "ratio"], 2),
        ("linear", {"epochs": 1, "seeds": 2}, ["route", "top1", "std", "macs", "ratio"], 2),
        ("tsne", {"points": 20}, ["route", "image", "class", "x", "y"], 40),
        ("curve", {"epochs": 1}, ["run", "route", "ratio", "macs", "knn1", "linear", "linear_std", "milliseconds"], 2),
    ],
)
def test_an_evaluation_is_a_frame_of_numbers(
    finished_run: ssl_dc.Run, protocol: str, options: dict[str, Any], columns: Sequence[str], rows: int
) -> None:
    frame = ssl_dc.evaluate(finished_run.folder, protocol, **options).to_frame()
    assert list(frame.columns) == columns
    assert len(frame) == rows
    assert all(frame[name].dtype.kind == "f" for name in {"top1", "macs", "x", "linear"} & set(columns))


def test_gates_and_cost_have_a_row_for_each_site_and_layer(finished_run: ssl_dc.Run) -> None:
    gates = ssl_dc.evaluate(finished_run.folder, "gates")
    assert gates.to_frame()["rate"].tolist() == [site.rate for site in gates.sites]
    cost = cost_of_run(finished_run.folder)
    assert cost.to_frame()["dense_macs"].sum() == cost.dense_macs


class Plain(ssl_dc.Report):
    """A stranger's report, which has nothing but a table."""

    def as_json(self) -> dict[str, Any]:
        return {}

    def tables(self) -> Sequence[ssl_dc.ReportTable]:
        rows = [("a <b>", "1.5"), ("c", "-")]
        return [ssl_dc.ReportTable("A & B", ("name", "value"), rows, total=("all", "1.5"), note="one\ntwo")]


def test_any_report_is_a_frame_of_its_first_table() -> None:
    assert Plain().to_frame().to_dict("list") == {"name": ["a <b>", "c"], "value": ["1.5", "-"]}


def test_a_notebook_shows_the_tables_with_nothing_in_them_that_is_not_text() -> None:
    root = ElementTree.fromstring(f"<div>{Plain()._repr_html_()}</div>")
    table = root.find("table")
    assert table is not None
    assert table.findtext("caption") == "A & B"
    rows = [[cell.text for cell in row] for row in table.iter("tr")]
    assert rows == [["name", "value"], ["a <b>", "1.5"], ["c", "-"], ["all", "1.5"]]
    assert [cell.get("style") for cell in table.findall("tbody/tr/td")] == ["text-align: right"] * 2
    assert root.findtext("p") == "one\ntwo"


def test_a_notebook_shows_what_a_run_is_and_reached(finished_run: ssl_dc.Run) -> None:
    root = ElementTree.fromstring(f"<div>{finished_run._repr_html_()}</div>")
    captions = [caption.text or "" for caption in root.iter("caption")]
    assert captions[0] == f"Run {finished_run.folder}"
    assert captions[1].startswith("kNN-1 and cost")


def test_pandas_is_named_where_it_is_missing(finished_run: ssl_dc.Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ssl_dc.ConfigError, match="pip install pandas"):
        finished_run.to_frame()
