"""How trainings went: a chart of each logged number over the steps, with all runs in it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from ssl_dc.evaluation.report import ReportTable
from ssl_dc.reporting.charts import Point, lines
from ssl_dc.reporting.page import Block, Chart, Charts, Section, Text
from ssl_dc.reporting.recorded import RecordedRun
from ssl_dc.run_records import LoggedStep

MOST_POINTS = 250
"""Logged steps of a run that a chart shows, evenly spread."""
MOST_ROWS = 40
"""Logged steps of a run that the table below it has."""

NOT_SHOWN = {"step", "epoch", "evaluated_budget"}
"""Numbers that say of which step, and of which budget, the others are."""

AT_A_BUDGET = {"evaluated_cost_ratio", "gate_threshold"}
"""Of a network for several budgets these are of one at a time, which ``evaluated_budget`` names."""

OF_THE_DRAWN_BUDGET = {"cost_ratio", "terms/budget", "terms/bound"}
"""Of a network for several budgets these are of the one that the step has drawn, so they jump: no line joins them."""

TITLES: Mapping[str, str] = {
    "loss": "Loss",
    "lr": "Learning rate",
    "cost_ratio": "Cost in training, share of the dense cost",
    "evaluated_cost_ratio": "Cost in evaluation mode, share of the dense cost",
    "gate_threshold": "Threshold of the gates, logits",
    "embedding_std": "Standard deviation of the embeddings",
    "effective_rank": "Effective rank of the embeddings",
    "watch/knn": "kNN-1 while it learns, %",
    "watch/linear": "Linear probe while it learns, %",
    "watch/rankme": "RankMe while it learns",
    "watch/lidar": "LiDAR while it learns",
    "watch/alpha_req": "Alpha-ReQ while it learns",
}

BY_ROUTE = re.compile(r"(watch/.+)/([^/]+)")
"""Numbers that each route has its own of: what they are, and the route."""

Values = Sequence[tuple[LoggedStep, float]]
"""Logged steps, each with one of its numbers."""


def training_section(runs: Sequence[RecordedRun]) -> Section:
    """The section."""
    names = dict.fromkeys(name for run in runs for logged in run.metrics for name in logged)
    charts: dict[str, list[str]] = {}
    for name in names:
        if name not in NOT_SHOWN:
            charts.setdefault(_what(name), []).append(name)
    blocks: list[Block] = [Text(f"{run.label}: {run.state}") for run in runs]
    blocks += [Text(f"{run.label} has logged no step yet.") for run in runs if not run.metrics]
    if charts:
        blocks.append(Charts([_chart(what, of, runs) for what, of in charts.items()]))
    return Section("Training", blocks)


def _what(name: str) -> str:
    """What a number is: its name, without the route if each route has its own."""
    match = BY_ROUTE.fullmatch(name)
    return match[1] if match else name


def _chart(what: str, names: Sequence[str], runs: Sequence[RecordedRun]) -> Chart:
    """The chart of a number of each run, or of the numbers of each route of each run."""
    series = {label: values for run in runs for name in names for label, values in _series(name, run)}
    title = TITLES.get(what) or _title(what)
    jumping = {run.label for run in runs if len(run.config.budget.budgets) > 1} if what in OF_THE_DRAWN_BUDGET else set()
    points = [
        Point(
            label,
            logged["step"],
            value,
            _about(label if len(series) > 1 else "", title, logged, value),
            joined=label not in jumping,
        )
        for label, values in series.items()
        for logged, value in _thinned(values, MOST_POINTS)
    ]
    return Chart(title, _summary(series), lines(points, along="step"), _table(title, series))


def _title(name: str) -> str:
    group, _, rest = name.partition("/")
    return f"Loss term {rest}" if rest and group == "terms" else name.replace("_", " ").replace("/", ", ")


def _series(name: str, run: RecordedRun) -> Iterator[tuple[str, Values]]:
    """The values of a number: one series for a run, or one for each budget that it is of."""
    having = [(logged, logged[name]) for logged in run.metrics if name in logged]
    match = BY_ROUTE.fullmatch(name)
    by_budget = name in AT_A_BUDGET and len(run.config.budget.budgets) > 1
    if having and not by_budget:
        yield (f"{run.label}, {match[2]}" if match else run.label), having
    for budget in sorted({_budget(logged) for logged, _ in having} if by_budget else ()):
        yield f"{run.label} @ {budget:g}", [(logged, value) for logged, value in having if _budget(logged) == budget]


def _budget(logged: LoggedStep) -> float:
    return logged.get("evaluated_budget", 0.0)


def _thinned(values: Values, most: int) -> Values:
    """At most so many of the values, evenly spread, the first and the last among them."""
    if len(values) <= most:
        return values
    return [values[round(number * (len(values) - 1) / (most - 1))] for number in range(most)]


def _about(label: str, title: str, logged: LoggedStep, value: float) -> str:
    epoch = f", epoch {logged['epoch']:g}" if "epoch" in logged else ""
    return f"{label}{': ' if label else ''}step {logged['step']:,.0f}{epoch}\n{title}: {_number(value)}"


def _summary(series: Mapping[str, Values]) -> str:
    """Where each series begins and ends, and its least and greatest value."""
    said = []
    for label, having in series.items():
        values = [value for _, value in having]
        first, last = (f"{_number(value)} at step {logged['step']:,.0f}" for logged, value in (having[0], having[-1]))
        named = f"{label}: " if len(series) > 1 else ""
        said.append(f"{named}{first}, {last}; least {_number(min(values))}, greatest {_number(max(values))}.")
    more = f" {len(said) - 3} more series are in the numbers." if len(said) > 3 else ""
    return " ".join(said[:3]) + more


def _table(title: str, series: Mapping[str, Values]) -> ReportTable:
    rows = [
        (label, f"{logged['step']:,.0f}", _number(value))
        for label, values in series.items()
        for logged, value in _thinned(values, MOST_ROWS)
    ]
    fewer = any(len(values) > MOST_ROWS for values in series.values())
    note = f"{MOST_ROWS} logged steps of each run, evenly spread; metrics.jsonl has all" if fewer else ""
    return ReportTable(title, ("run", "step", title), rows, note=note)


def _number(value: float) -> str:
    return f"{value:,.0f}" if value == int(value) and abs(value) < 1e9 else f"{value:.4g}"
