"""What all runs reach, against what they cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ssl_dc.bench.curve import CurvePoint
from ssl_dc.evaluation.report import ReportTable
from ssl_dc.reporting.charts import Point, lines
from ssl_dc.reporting.measured import MeasuredRun
from ssl_dc.reporting.page import Block, Chart, Charts, Section, Text
from ssl_dc.routes import Route

MEASURES = {"linear": "Linear classifier, top-1 %", "knn1": "kNN-1, top-1 %"}
COSTS = {"macs": "MACs an image", "milliseconds": "milliseconds an image, one thread"}
COLUMNS = ("run", "route", "share of dense cost", "MACs an image", "kNN-1 %", "linear %", "ms an image")


def accuracy_section(measured: Mapping[str, MeasuredRun]) -> Section:
    """The section.

    Args:
        measured: What was measured of each run, by its label.
    """
    blocks: list[Block] = [Text(_how(label, run)) for label, run in measured.items()]
    points = {label: run.points for label, run in measured.items() if run.points}
    costs = [cost for cost in COSTS if any(getattr(point, cost) is not None for some in points.values() for point in some)]
    charts = [_chart(points, cost, measure) for cost in costs for measure in MEASURES]
    if charts:
        blocks.append(Charts(charts, wide=True))
    if charts and "milliseconds" not in costs:
        blocks.append(Text("Milliseconds were not measured: ssl-dc report --time measures them."))
    return Section("Accuracy against cost", blocks)


def _how(label: str, run: MeasuredRun) -> str:
    if not run.points:
        return f"{label}: {run.why_no_points}"
    return f"{label}: on {run.measured_on}; learned from {run.learned_from:,} training images."


def _chart(runs: Mapping[str, Sequence[CurvePoint]], cost: str, measure: str) -> Chart:
    shown = {label: [point for point in points if getattr(point, cost) is not None] for label, points in runs.items()}
    points = [_point(label, one, cost, measure) for label, some in shown.items() for one in some]
    title = f"{MEASURES[measure]} against {COSTS[cost]}"
    spec = lines(points, along=COSTS[cost], upwards=MEASURES[measure], dots=60)
    summary = " ".join(_said(label, some, cost, measure, several=len(shown) > 1) for label, some in shown.items())
    hint = " The larger points are dense routes."
    rows = [(label, *one.cells()) for label, some in shown.items() for one in some]
    columns = COLUMNS if any(row[-1] for row in rows) else COLUMNS[:-1]
    return Chart(title, summary + hint, spec, ReportTable(title, columns, [row[: len(columns)] for row in rows]))


def _point(label: str, point: CurvePoint, cost: str, measure: str) -> Point:
    took = "" if point.milliseconds is None else f", {point.milliseconds:.3f} ms"
    about = (
        f"{label}, {point.route}\n{MEASURES[measure]}: {getattr(point, measure):.2f}\n"
        f"{point.macs:,.0f} MACs, {100 * point.ratio:.1f} % of the dense cost{took}"
    )
    dense = point.route == str(Route.DENSE)
    return Point(label, getattr(point, cost), getattr(point, measure), about, joined=not dense, large=dense)


def _said(label: str, points: Sequence[CurvePoint], cost: str, measure: str, *, several: bool) -> str:
    said = [f"{point.route} {getattr(point, measure):.2f} % {_at(point, cost)}" for point in points]
    few = said if len(said) <= 3 else [said[0], said[1], "...", said[-1]]
    return f"{label + ': ' if several else ''}{', '.join(few)}."


def _at(point: CurvePoint, cost: str) -> str:
    """At which cost a route is, in words."""
    if cost == "milliseconds":
        return f"at {point.milliseconds:.3f} ms"
    return f"at {100 * point.ratio:.1f} % of the dense cost"
