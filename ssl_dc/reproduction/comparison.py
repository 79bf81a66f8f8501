"""Our numbers beside the paper's: mean and standard deviation over seeds, as Markdown, CSV and HTML."""

from __future__ import annotations

import csv
import html
import io
from collections.abc import Iterable, Sequence
from dataclasses import asdict, astuple, dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from ssl_dc.atomic_files import write_text
from ssl_dc.evaluation.report import ReportTable
from ssl_dc.reproduction.requests import TableRequest
from ssl_dc.reproduction.runner import Measurement
from ssl_dc.reproduction.written import Written
from ssl_dc.routes import Route


@dataclass(frozen=True)
class Row:
    """One system at one budget. Every number is a text, which is empty where there is no number.

    Fields with ``ours`` are means and standard deviations over seeds. Fields with ``paper`` are the paper's numbers for the
    same data set and budget.
    """

    system: str
    budget: str
    seeds: str
    dense_ours: str
    gated_ours: str
    reduction_ours: str
    dense_paper: str
    gated_paper: str
    reduction_paper: str


HEADINGS = {
    "system": "system",
    "budget": "budget",
    "seeds": "seeds",
    "dense_ours": "dense, ours",
    "gated_ours": "gated, ours",
    "reduction_ours": "MACs reduction, ours",
    "dense_paper": "dense, paper",
    "gated_paper": "gated, paper",
    "reduction_paper": "FLOPs reduction, paper",
}


@dataclass(frozen=True)
class Comparison(Written):
    """A reproduced table of the paper, with our numbers beside the paper's.

    Attributes:
        title: The table's title.
        call: The command that made it.
        rows: The table's rows, in the paper's order.
    """

    title: str
    call: str
    rows: Sequence[Row]

    def as_json(self) -> dict[str, Any]:
        """The table as plain values. Every number is a text, which is empty where there is no number."""
        return {"title": self.title, "call": self.call, "rows": [asdict(row) for row in self.rows]}

    def tables(self) -> Sequence[ReportTable]:
        """The table."""
        return [ReportTable(self.title, list(HEADINGS.values()), [astuple(row) for row in self.rows], note=self.call)]

    @property
    def text(self) -> str:
        """The table as Markdown, with the call that made it. Cells are escaped: no text can end a cell or become HTML."""
        lines = [f"# {self.title}", "", f"`{self.call}`", ""]
        lines.append("| " + " | ".join(HEADINGS.values()) + " |")
        lines.append("| --- | --- |" + " ---: |" * (len(HEADINGS) - 2))
        lines += ["| " + " | ".join(map(_cell, astuple(row))) + " |" for row in self.rows]
        return "\n".join(lines) + "\n"

    @property
    def comma_separated(self) -> str:
        """The table as CSV."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(HEADINGS)
        writer.writerows(map(astuple, self.rows))
        return text.getvalue()

    @property
    def page(self) -> str:
        """The table as one HTML page. All text is escaped."""
        head = "".join(f"<th>{html.escape(heading)}</th>" for heading in HEADINGS.values())
        body = "\n".join(
            "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in astuple(row)) + "</tr>" for row in self.rows
        )
        title, call = html.escape(self.title), html.escape(self.call)
        return (
            f"<!doctype html>\n<html lang='en'>\n<meta charset='utf-8'>\n<title>{title}</title>\n"
            "<style>body{font:16px sans-serif;margin:2em}td,th{padding:.3em .8em;border-bottom:1px solid #ccc;"
            "text-align:right}td:first-child,th:first-child{text-align:left}</style>\n"
            f"<h1>{title}</h1>\n<p><code>{call}</code></p>\n"
            f"<table>\n<tr>{head}</tr>\n{body}\n</table>\n</html>\n"
        )


def _cell(text: str) -> str:
    return html.escape(text, quote=False).replace("|", "\\|")


def rows(request: TableRequest, measurements: Sequence[Measurement]) -> list[Row]:
    """The table's rows, in the paper's order. A row with missing runs shows the runs that are there."""
    paper = _paper_rows(request)
    made = []
    for label, system in request.spec.systems:
        for budget in dict.fromkeys(request.scope.budgets) if system.budgeted else (None,):
            ours = [m for m in measurements if (m.run.system.name, m.run.budget) == (system.name, budget)]
            theirs = paper.get((label, "" if budget is None else f"{budget:g}"), {})
            made.append(_row(system.title, budget, ours, theirs))
    return made


def _row(title: str, budget: float | None, ours: Sequence[Measurement], theirs: dict[str, str]) -> Row:
    return Row(
        system=title,
        budget="" if budget is None else f"{budget:g}",
        seeds=str(len(ours)),
        dense_ours=_mean_and_deviation(_top1(ours, Route.DENSE)),
        gated_ours=_mean_and_deviation(_top1(ours, Route.GATED)),
        reduction_ours=_mean_and_deviation(m.reduction for m in ours if m.reduction is not None),
        dense_paper=theirs.get("dense", ""),
        gated_paper=theirs.get("gated", ""),
        reduction_paper=theirs.get("flops_reduction", ""),
    )


def _top1(ours: Sequence[Measurement], route: Route) -> list[float]:
    """Accuracies of a route, of the runs that trained it. The dense route of Baseline-2 is untrained and says nothing."""
    return [m.top1[str(route)] for m in ours if str(route) in m.top1 and route in m.run.config.routes]


def _mean_and_deviation(values: Iterable[float]) -> str:
    numbers = list(values)
    if not numbers:
        return ""
    mean = f"{np.mean(numbers):.2f}"
    return f"{mean} ± {np.std(numbers, ddof=1):.2f}" if len(numbers) > 1 else mean


def _paper_rows(request: TableRequest) -> dict[tuple[str, str], dict[str, str]]:
    """The paper's rows of the table for the data set, by (objective/method, budget)."""
    text = resources.files("ssl_dc.reproduction").joinpath("paper_tables.csv").read_text(encoding="utf-8")
    number = str(request.spec.number)
    return {
        (f"{row['objective']}/{row['method']}", row["budget"]): row
        for row in csv.DictReader(io.StringIO(text))
        if row["table"] == number and row["dataset"] == request.scope.dataset and row["transfer_to"] == (request.to or "")
    }


def write_table(folder: Path, request: TableRequest, measurements: Sequence[Measurement], call: str) -> Comparison:
    """Write the table as ``NAME.md``, ``.csv`` and ``.html`` into a folder."""
    table = Comparison(request.title, call, rows(request, measurements))
    for ending, text in (("md", table.text), ("csv", table.comma_separated), ("html", table.page)):
        write_text(folder / f"{request.file_name}.{ending}", text)
    return table
