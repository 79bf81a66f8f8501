"""How trainings went: a chart of each logged number over the steps, with all runs in it."""

from __future__ import annotations

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
}


def training_section(runs: Sequence[RecordedRun]) -> Section:
    """The section."""
    names = list(dict.fromkeys(name for run in runs for logged in run.metrics for name in logged))
    blocks: list[Block] = [Text(f"{run.label}: {run.state}") for run in runs]
    blocks += [Text(f"{run.label} has logged no step yet.") for run in runs if not run.metrics]
    charts = [_chart(name, runs) for name in names if name not in NOT_SHOWN]
    if charts:
        blocks.append(Charts(charts))
    return Section("Training", blocks)


def _chart(name: str, runs: Sequence[RecordedRun]) -> Chart:
    series = {label: steps for run in runs for label, steps in _series(name, run)}
    title = TITLES.get(name) or _title(name)
    shown = {label: _thinned(steps, MOST_POINTS) for label, steps in series.items()}
    several = len(series) > 1
    jumping = {run.label for run in runs if len(run.config.budget.budgets) > 1} if name in OF_THE_DRAWN_BUDGET else set()
    points = [
        Point(
            label,
            logged["step"],
            logged[name],
            _about(label if several else "", title, logged, name),
            joined=label not in jumping,
        )
        for label, steps in shown.items()
        for logged in steps
    ]
    spec = lines(points, along="step")
    return Chart(title, _summary(series, name), spec, _table(title, series, name))


def _title(name: str) -> str:
    group, _, rest = name.partition("/")
    return f"Loss term {rest}" if rest and group == "terms" else name.replace("_", " ").replace("/", ", ")


def _series(name: str, run: RecordedRun) -> Iterator[tuple[str, Sequence[LoggedStep]]]:
    """The logged steps that have a number: one series for a run, or one for each budget that it is of."""
    having = [logged for logged in run.metrics if name in logged]
    by_budget = name in AT_A_BUDGET and len(run.config.budget.budgets) > 1
    if having and not by_budget:
        yield run.label, having
    for budget in sorted({logged.get("evaluated_budget", 0.0) for logged in having} if by_budget else ()):
        yield f"{run.label} @ {budget:g}", [logged for logged in having if logged.get("evaluated_budget", 0.0) == budget]


def _thinned(steps: Sequence[LoggedStep], most: int) -> Sequence[LoggedStep]:
    """At most so many of the steps, evenly spread, the first and the last among them."""
    if len(steps) <= most:
        return steps
    return [steps[round(number * (len(steps) - 1) / (most - 1))] for number in range(most)]


def _about(label: str, title: str, logged: LoggedStep, name: str) -> str:
    epoch = f", epoch {logged['epoch']:g}" if "epoch" in logged else ""
    return f"{label}{': ' if label else ''}step {logged['step']:,.0f}{epoch}\n{title}: {_number(logged[name])}"


def _summary(series: Mapping[str, Sequence[LoggedStep]], name: str) -> str:
    """Where each series begins and ends, and its least and greatest number."""
    several = len(series) > 1
    said = []
    for label, steps in series.items():
        values = [logged[name] for logged in steps]
        ends = (
            f"{_number(values[0])} at step {steps[0]['step']:,.0f}, {_number(values[-1])} at step {steps[-1]['step']:,.0f}"
        )
        said.append(
            f"{label + ': ' if several else ''}{ends}; least {_number(min(values))}, greatest {_number(max(values))}."
        )
    more = f" {len(said) - 3} more series are in the numbers." if len(said) > 3 else ""
    return " ".join(said[:3]) + more


def _table(title: str, series: Mapping[str, Sequence[LoggedStep]], name: str) -> ReportTable:
    shown = {label: _thinned(steps, MOST_ROWS) for label, steps in series.items()}
    rows = [(label, f"{logged['step']:,.0f}", _number(logged[name])) for label, steps in shown.items() for logged in steps]
    fewer = any(len(steps) < len(series[label]) for label, steps in shown.items())
    note = f"{MOST_ROWS} logged steps of each run, evenly spread; metrics.jsonl has all" if fewer else ""
    return ReportTable(title, ("run", "step", title), rows, note=note)


def _number(value: float) -> str:
    return f"{value:,.0f}" if value == int(value) and abs(value) < 1e9 else f"{value:.4g}"
