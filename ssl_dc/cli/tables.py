"""Results as tables for people."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ssl_dc.evaluation.cost import CostTable
from ssl_dc.evaluation.outcome import Outcome
from ssl_dc.evaluation.report import Report
from ssl_dc.printable import printable
from ssl_dc.reproduction.estimate import Estimate
from ssl_dc.reproduction.plan import PlannedRun


def print_outcome(outcome: Outcome) -> None:
    """What a training run reports at its end."""
    table = Table(title=f"kNN-1 and cost, on {outcome.measured_on}")
    for heading in ("route", "top-1 %", "untrained %", "MACs an image", "share of dense cost"):
        table.add_column(heading, justify="left" if heading == "route" else "right")
    for route, reached in outcome.routes.items():
        accuracies = ("-" if top1 is None else f"{top1:.2f}" for top1 in (reached.knn1, reached.knn1_untrained))
        table.add_row(str(route), *accuracies, f"{reached.macs:,.0f}", f"{reached.ratio:.4f}")
    _print(table)
    if outcome.budget is not None:
        print(f"budget asked for: {outcome.budget:g} of the dense cost, {outcome.dense_macs:,} MACs")


def print_report(report: Report) -> None:
    """What an evaluation protocol says of a run."""
    for shown in report.tables():
        table = Table(title=_cell(shown.title))
        for number, heading in enumerate(shown.columns):
            table.add_column(_cell(heading), justify="right" if number else "left")
        for row in shown.rows:
            table.add_row(*map(_cell, row))
        if shown.total is not None:
            table.add_section()
            table.add_row(*map(_cell, shown.total))
        _print(table)
        if shown.note:
            print(printable(shown.note))


def print_cost(cost: CostTable) -> None:
    """The cost of a network, layer by layer."""
    table = Table(title=_cell(f"MACs for one image: {cost.network}"))
    for heading in ("layer", "dense", "gated", "gated / dense"):
        table.add_column(heading, justify="left" if heading == "layer" else "right")
    for row in cost.rows:
        share = f"{row.gated_macs / row.dense_macs:.3f}" if row.dense_macs else ""
        table.add_row(_cell(row.layer), f"{row.dense_macs:,}", f"{row.gated_macs:,.0f}", share)
    table.add_section()
    table.add_row("all", f"{cost.dense_macs:,}", f"{cost.gated_macs:,.0f}", f"{cost.ratio:.4f}")
    _print(table)
    print(f"gated: {cost.gated_is}")


def print_plan(runs: Sequence[tuple[PlannedRun, bool]], estimate: Estimate) -> None:
    """The runs of a table: which are done, and how much computing is left."""
    table = Table(title=f"{len(runs)} runs, {sum(done for _, done in runs)} done")
    for heading in ("run", "epochs", "done", "estimated time"):
        table.add_column(heading, justify="right" if heading in {"epochs", "estimated time"} else "left")
    for (run, done), seconds in zip(runs, estimate.seconds, strict=True):
        table.add_row(run.name, str(run.config.training.epochs), "yes" if done else "", "" if done else _duration(seconds))
    table.add_section()
    table.add_row("all that are left", "", "", _duration(estimate.total))
    _print(table)
    print(f"Times are estimates of the trainings alone, {estimate.basis}.")


def _duration(seconds: float | None) -> str:
    """A time in words, to the minute; one too short for that in seconds."""
    if seconds is None:
        return "unknown"
    minutes = round(seconds / 60)
    if minutes < 1:
        return f"{seconds:.0f} s"
    days, hours = divmod(minutes // 60, 24)
    parts = [(days, "d"), (hours, "h"), (minutes % 60 if not days else 0, "min")]
    return " ".join(f"{number} {unit}" for number, unit in parts if number)


def print_columns(title: str, columns: Sequence[str], rows: Iterable[Mapping[str, object]]) -> None:
    """Rows of plain values under their column names."""
    table = Table(*columns, title=_cell(title), title_justify="left")
    for row in rows:
        table.add_row(*(_cell(str(row[column])) for column in columns))
    _print(table)


def _cell(text: str) -> str:
    """Text as it is: neither rich's markup nor the terminal's escape sequences mean anything in it."""
    return escape(printable(text))


def _print(table: Table) -> None:
    """To standard output, as wide as the table needs when nobody's terminal limits it."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=160)
    console.print(table)
