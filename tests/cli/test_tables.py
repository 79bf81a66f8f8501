"""The one printer: every report can be read at 60, 80 and 120 columns, and when it is piped."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from contextlib import redirect_stdout
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len

from ssl_dc.cli.tables import print_report
from ssl_dc.evaluation.cost import CostRow, CostTable
from ssl_dc.evaluation.gate_statistics import gate_statistics
from ssl_dc.evaluation.outcome import Outcome, RouteOutcome
from ssl_dc.evaluation.paired import Difference
from ssl_dc.evaluation.report import Report, ReportTable
from ssl_dc.evaluation.scores import Evaluation, RouteScore
from ssl_dc.routes import Route

WIDTHS = (60, 80, 120)


class Shown(Report):
    """A report of given tables."""

    def __init__(self, *tables: ReportTable) -> None:
        self._tables = tables

    def as_json(self) -> dict[str, Any]:
        return {}

    def tables(self) -> Sequence[ReportTable]:
        return self._tables


def outcome() -> Outcome:
    gain = Difference(-33.05, 2.9)
    dense = RouteOutcome(39.17, 72.22, gain, Difference(1.0, 2.0), 703560448.0, 1.0)
    routes = {Route.DENSE: dense, Route.GATED: RouteOutcome(None, None, None, None, 2.1e8, 0.3)}
    return Outcome(routes, "1,234,567 held-out images", 703560448, 0.3, 88.0, ("train longer.",))


def evaluation() -> Evaluation:
    settings = {"to": "cifar100", "to_root": "/data/a folder/of images", "seeds": 5, "epochs": 100}
    routes = {Route.DENSE: RouteScore(71.256, 0.12, 703560448, 1), Route.GATED: RouteScore(70.1, None, 129618576, 0.1842)}
    return Evaluation("transfer", settings, 50_000, 10_000, routes)


def gates() -> Report:
    rng = np.random.default_rng(0)
    masks = {f"stages.layer{number}.0.hidden": rng.random((40, 512)) < 0.5 for number in range(4)}
    return gate_statistics(masks, np.arange(40) % 2, ("a", "b"))


def cost() -> CostTable:
    rows = [CostRow(f"stages.layer{number}.1.conv2", 75_497_472, 12_345_678.9) for number in range(4)]
    return CostTable(
        "resnet18, 32 px, gating dgnet", "the mean over 10,000 held-out images", rows, 703_560_448, 129_618_576
    )


REPORTS = {"outcome": outcome, "evaluation": evaluation, "gates": gates, "cost": cost}


def printed(report: Report, capsys: pytest.CaptureFixture[str]) -> str:
    print_report(report)
    return capsys.readouterr().out


def cells(report: Report) -> list[str]:
    return [
        cell for table in report.tables() for row in [*table.rows, *([table.total] if table.total else [])] for cell in row
    ]


@pytest.mark.parametrize("name", REPORTS)
@pytest.mark.parametrize("width", WIDTHS)
def test_every_report_is_whole_at_every_width(
    name: str, width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    report = REPORTS[name]()
    text = printed(report, capsys)
    assert max(map(cell_len, text.splitlines())) <= width
    assert "…" not in text
    for cell in cells(report):
        assert cell in text, f"{cell!r} is not whole"


@pytest.mark.parametrize("name", REPORTS)
def test_a_pipe_has_no_width_and_gets_columns(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    report = REPORTS[name]()
    lines = printed(report, capsys).splitlines()
    for table in report.tables():
        for row in table.rows:
            assert any(all(cell in line for cell in row) for line in lines), f"{row} is not on one line"


def test_columns_that_do_not_fit_become_a_block_a_row(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    wide = printed(gates(), capsys)
    assert "site: stages.layer0.0.hidden" in wide
    assert re.search(r"^  distinct masks +40 *$", wide, re.MULTILINE)
    monkeypatch.setenv("COLUMNS", "120")
    assert "site: " not in printed(gates(), capsys)


def test_numbers_stand_to_the_right_and_words_to_the_left(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    rows = [("a", "1", "yes", "12 min"), ("b", "1,000", "", "-")]
    lines = printed(Shown(ReportTable("t", ("name", "number", "done", "time"), rows)), capsys).splitlines()
    assert "a          1  yes   12 min" in lines
    assert "b      1,000             -" in lines


def test_notes_and_titles_break_between_words(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    words = " ".join(f"word{number}" for number in range(30))
    text = printed(Shown(ReportTable(words, ("name",), [("a",)], note=words)), capsys)
    assert max(map(len, text.splitlines())) <= 60
    assert text.split().count("word29") == 2


@pytest.mark.long
@settings(deadline=None, max_examples=30)
@given(
    st.lists(st.lists(st.text(st.characters(codec="utf-8"), max_size=30), min_size=3, max_size=3), min_size=1, max_size=4),
    st.sampled_from(WIDTHS),
)
def test_any_text_keeps_within_the_width(rows: list[list[str]], width: int) -> None:
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(io.StringIO()) as out:
        patch.setenv("COLUMNS", str(width))
        print_report(Shown(ReportTable("title", ("first", "second", "third"), rows)))
    assert max(map(cell_len, out.getvalue().split("\n"))) <= width
