"""Results as tables for people."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ssl_dc.evaluation.cost import CostTable
from ssl_dc.evaluation.outcome import Outcome
from ssl_dc.evaluation.report import Report
from ssl_dc.printable import printable
from ssl_dc.reproduction.estimate import Estimate
from ssl_dc.reproduction.plan import PlannedRun

if TYPE_CHECKING:
    from ssl_dc.bench.measure import Measured
    from ssl_dc.bench.profile import Profile


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


def print_bench(results: Sequence[Measured]) -> None:
    """What was timed, a table a situation; milliseconds a batch."""
    for result in results:
        table = Table(title=f"{result.situation}: milliseconds")
        for heading in ("way", "median", "p10", "p90", "images / s", "speed-up"):
            table.add_column(heading, justify="left" if heading == "way" else "right")
        for way in result.times.milliseconds:
            timing = result.timing(way)
            rate = 1000 * result.situation.batch / timing.median
            times = (f"{value:.3f}" for value in (timing.median, timing.p10, timing.p90))
            table.add_row(way, *times, f"{rate:,.1f}", f"{result.speed_up(way):.2f}")
        _print(table)
        print(f"speed-ups are over {result.fastest_dense!r}, the fastest dense way, in the same rounds")
        if result.kept is not None and result.promise is not None and result.cost_ratio is not None:
            print(
                f"the gated route costs {result.cost_ratio:.4f} of the dense MACs, which promises {result.promise:.2f};"
                f" the executor keeps {100 * result.kept:.0f} % of that"
            )
        for name, reason in result.unavailable.items():
            print(printable(f"not measured: {name}: {reason}"))


def print_profile(profile: Profile) -> None:
    """Where the executor's time goes."""
    table = Table(title=f"microseconds an image by the executor, batch 1, threads: {profile.threads}")
    for heading in ("layer", "dense", "gated", "gated / dense", "MACs, gated / dense"):
        table.add_column(heading, justify="left" if heading == "layer" else "right")
    for layer in profile.layers:
        ratio = f"{layer.gated / layer.dense:.3f}" if layer.dense else ""
        share = "" if layer.share is None else f"{layer.share:.3f}"
        table.add_row(_cell(layer.layer), f"{layer.dense:.1f}", f"{layer.gated:.1f}", ratio, share)
    table.add_section()
    table.add_row("all", f"{profile.dense:.1f}", f"{profile.gated:.1f}", f"{profile.gated / profile.dense:.3f}", "")
    _print(table)
    print(f"gated: mean over {profile.images} held-out images")


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
