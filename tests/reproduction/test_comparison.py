"""Our numbers beside the paper's."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path

import pytest

from ssl_dc.reproduction.comparison import HEADINGS, Comparison, Row, rows, write_table
from ssl_dc.reproduction.plan import Scope
from ssl_dc.reproduction.requests import TableRequest
from ssl_dc.reproduction.runner import Measurement


def request(
    table: str, dataset: str, budgets: Sequence[float] = (0.1, 0.3), seeds: Sequence[int] = (0, 1, 2)
) -> TableRequest:
    return TableRequest(table, Scope("small", dataset, None, budgets, seeds))


def transfer(dataset: str, to: str) -> TableRequest:
    return TableRequest("table2", Scope("small", dataset, None, (0.1, 0.3), (0,)), to)


@pytest.mark.parametrize(
    ("dataset", "to", "budget", "paper"),
    [
        ("cifar100", "stl10", "0.1", ("64.69", "64.29")),
        ("cifar100", "cifar10", "0.3", ("80.23", "80.24")),
        ("imagenet100", "cifar100", "0.3", ("28.81", "25.55")),
        ("imagenet100", "cifar100", "0.1", ("", "")),
    ],
)
def test_the_papers_transfers_stand_in_their_row(dataset: str, to: str, budget: str, paper: tuple[str, str]) -> None:
    row = row_of(rows(transfer(dataset, to), []), "VICReg-Dual", budget)
    assert (row.dense_paper, row.gated_paper) == paper


def measured(asked: TableRequest, system: str, budget: float | None, tops: Sequence[float]) -> list[Measurement]:
    """One measurement a seed; the gated route a tenth below the dense one, at a cost that falls with the seed."""
    gated = budget is not None
    return [
        Measurement(
            run,
            {"dense": tops[run.seed], **({"gated": tops[run.seed] - 0.1} if gated else {})},
            60.0 + run.seed if gated else None,
        )
        for run in asked.runs()
        if (run.system.name, run.budget) == (system, budget)
    ]


def row_of(made: Sequence[Row], system: str, budget: str) -> Row:
    (row,) = [row for row in made if (row.system, row.budget) == (system, budget)]
    return row


@pytest.mark.parametrize(
    ("table", "dataset", "system", "budget", "paper"),
    [
        ("table1", "cifar10", "VICReg (Baseline-1)", "", ("91.11", "", "")),
        ("table1", "cifar10", "VICReg-Dual", "0.1", ("88.99", "88.94", "81.49")),
        ("table1", "cifar10", "VICReg-Gating (Baseline-2)", "0.3", ("", "89.49", "69.27")),
        ("table1", "imagenet100", "VICReg-Dual", "0.3", ("75.12", "75.04", "64.98")),
        ("table3", "stl10", "Barlow-Twins-Dual", "0.1", ("73.45", "73.49", "76.74")),
        ("table4", "cifar100", "VICReg-Dual, 2x encoders", "0.3", ("55.65", "55.52", "70.07")),
        ("table5", "cifar100", "VICReg-Dual without invariance", "0.1", ("4.06", "6.31", "93.77")),
        ("table6", "stl10", "VICReg-Dual, gate warm-up", "0.1", ("77.53", "77.44", "73.20")),
        # what the paper does not have
        ("table1", "imagenet100", "VICReg-Dual", "0.1", ("", "", "")),
        ("table1", "digits", "VICReg-Dual", "0.1", ("", "", "")),
    ],
)
def test_the_papers_numbers_stand_in_their_row(
    table: str, dataset: str, system: str, budget: str, paper: tuple[str, str, str]
) -> None:
    row = row_of(rows(request(table, dataset), []), system, budget)
    assert (row.dense_paper, row.gated_paper, row.reduction_paper) == paper
    assert (row.seeds, row.dense_ours, row.gated_ours, row.reduction_ours) == ("0", "", "", "")


def test_mean_and_deviation_over_seeds_by_hand() -> None:
    asked = request("table1", "cifar10")
    tops = (88.0, 89.0, 91.5)
    mean = (88.0 + 89.0 + 91.5) / 3
    deviation = math.sqrt(sum((top - mean) ** 2 for top in tops) / 2)  # over n - 1
    row = row_of(rows(asked, measured(asked, "dual", 0.1, tops)), "VICReg-Dual", "0.1")
    assert row.seeds == "3"
    assert row.dense_ours == f"{mean:.2f} ± {deviation:.2f}" == "89.50 ± 1.80"
    assert row.gated_ours == "89.40 ± 1.80"
    assert row.reduction_ours == "61.00 ± 1.00"


def test_one_seed_has_no_deviation_and_a_missing_one_is_not_counted() -> None:
    asked = request("table1", "cifar10")
    made = rows(
        asked, [*measured(asked, "dual", 0.1, (88.0, 89.0, 90.0))[:1], *measured(asked, "dual", 0.3, (1.0, 2.0, 3.0))]
    )
    assert row_of(made, "VICReg-Dual", "0.1").dense_ours == "88.00"
    assert row_of(made, "VICReg-Dual", "0.1").seeds == "1"
    assert row_of(made, "VICReg-Dual", "0.3").dense_ours == "2.00 ± 1.00"


def test_measurements_go_to_their_own_row() -> None:
    asked = request("table1", "cifar10", seeds=[0])
    made = rows(
        asked,
        [
            *measured(asked, "dual", 0.3, (70.0,)),
            *measured(asked, "baseline1", None, (80.0,)),
            *measured(asked, "baseline2", 0.1, (60.0,)),
        ],
    )
    filled = {(row.system, row.budget): (row.dense_ours, row.gated_ours) for row in made if row.seeds == "1"}
    assert filled == {
        ("VICReg (Baseline-1)", ""): ("80.00", ""),
        ("VICReg-Gating (Baseline-2)", "0.1"): ("", "59.90"),  # its dense route was never trained
        ("VICReg-Dual", "0.3"): ("70.00", "69.90"),
    }


def test_rows_stand_in_the_papers_order() -> None:
    made = [(row.system, row.budget) for row in rows(request("table1", "cifar10", budgets=(0.3, 0.1, 0.3)), [])]
    assert made == [
        ("VICReg (Baseline-1)", ""),
        ("VICReg-Gating (Baseline-2)", "0.3"),
        ("VICReg-Gating (Baseline-2)", "0.1"),
        ("VICReg-Dual", "0.3"),
        ("VICReg-Dual", "0.1"),
    ]


class Cells(HTMLParser):
    """The text of every cell, and every tag that was opened."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:  # noqa: ARG002
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def test_html_escapes_everything_that_is_shown() -> None:
    evil = "<script>alert('x')</script> & \"more\""
    table = [Row(evil, evil, evil, evil, evil, evil, evil, evil, evil)]
    text = Comparison(evil, evil, table).page
    assert "<script" not in text
    parser = Cells()
    parser.feed(text)
    assert set(parser.tags) == {"html", "meta", "title", "style", "h1", "p", "code", "table", "tr", "th", "td"}
    assert parser.text.count(evil) == 3 + 9  # title, heading, call, cells


def test_markdown_has_the_call_and_one_line_a_row() -> None:
    asked = request("table1", "cifar10")
    made = rows(asked, measured(asked, "dual", 0.1, (88.0, 89.0, 90.0)))
    lines = Comparison("A title", "ssl-dc reproduce table1", made).text.splitlines()
    assert lines[0] == "# A title"
    assert lines[2] == "`ssl-dc reproduce table1`"
    assert lines[4] == "| " + " | ".join(HEADINGS.values()) + " |"
    assert len(lines) == 6 + len(made)
    assert "| VICReg-Dual | 0.1 | 3 | 89.00 ± 1.00 | 88.90 ± 1.00 | 61.00 ± 1.00 | 88.99 | 88.94 | 81.49 |" in lines
    assert len({line.count("|") for line in lines[4:]}) == 1


def test_csv_reads_back() -> None:
    asked = request("table4", "cifar100")
    made = rows(asked, measured(asked, "dual-2x", 0.3, (50.0, 51.0, 52.0)))
    read = list(csv.DictReader(io.StringIO(Comparison("A title", "the call", made).comma_separated)))
    assert [Row(**row) for row in read] == made


def test_write_table_writes_three_files_of_the_same_rows(tmp_path: Path) -> None:
    asked = request("table1", "cifar10")
    table = write_table(tmp_path, asked, measured(asked, "dual", 0.1, (88.0, 89.0, 90.0)), "the call")
    stem = tmp_path / "table1-cifar10-small"
    assert {path.name for path in tmp_path.iterdir()} == {f"{stem.name}.{ending}" for ending in ("md", "csv", "html")}
    assert stem.with_suffix(".md").read_text(encoding="utf-8") == table.text
    for ending in ("md", "csv", "html"):
        written = stem.with_suffix(f".{ending}").read_text(encoding="utf-8")
        for shown in ("VICReg-Dual", "89.00 ± 1.00", "81.49"):
            assert shown in written, ending
    assert "small scale" in table.title
    assert "linear" in table.title
    assert [row["system"] for row in table.as_json()["rows"]] == [row[0] for row in table.tables()[0].rows]
