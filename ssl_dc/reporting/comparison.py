"""Several runs beside each other: what they reach, what they cost, and which settings differ."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ssl_dc.bench.curve import milliseconds
from ssl_dc.config import dump
from ssl_dc.config.layers import flattened
from ssl_dc.evaluation.drawing import new_figure
from ssl_dc.evaluation.lettering import Lettering
from ssl_dc.evaluation.other_data import moved_data
from ssl_dc.evaluation.report import Report, ReportTable
from ssl_dc.model import Model
from ssl_dc.progress.progress import progress_watchers
from ssl_dc.reporting.recorded import RecordedRun, RunLike, recorded_runs
from ssl_dc.routes import Route
from ssl_dc.run_records import as_number
from ssl_dc.trackers.base import Watcher, phase

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMNS = ("run", "route", "kNN-1 %", "share of dense cost", "MACs an image", "ms an image")


@dataclass(frozen=True)
class ComparedRoute:
    """What a route of a run reaches and costs, as its ``result.json`` says.

    Attributes:
        run: The run.
        route: The route, in words.
        knn1: kNN-1 top-1 accuracy in percent; None without labels.
        ratio: Mean cost of an image, as a share of the dense cost.
        macs: The same in MACs.
        milliseconds: Median time of an image in the executor, with one thread; None if it was not measured.
    """

    run: str
    route: str
    knn1: float | None
    ratio: float | None
    macs: float | None
    milliseconds: float | None = None

    def cells(self) -> tuple[str, ...]:
        """The cells of a table's row."""
        return (
            self.run,
            self.route,
            "-" if self.knn1 is None else f"{self.knn1:.2f}",
            "-" if self.ratio is None else f"{self.ratio:.4f}",
            "-" if self.macs is None else f"{self.macs:,.0f}",
            "" if self.milliseconds is None else f"{self.milliseconds:.3f}",
        )


@dataclass(frozen=True)
class RunComparison(Report):
    """Several runs beside each other.

    Attributes:
        routes: What each route of each run reaches and costs.
        states: How far each run has come, in a sentence, by its label.
        settings: The settings that differ: for each dotted key the value of each run, in the order of the runs.
        damage: Which fields of a run's result are damaged, in a sentence, by its label; nothing of runs that have none.
    """

    routes: Sequence[ComparedRoute]
    states: Mapping[str, str]
    settings: Mapping[str, Sequence[Any]]
    damage: Mapping[str, str] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """The comparison as plain values."""
        return {
            "runs": [
                {"run": label, "state": state, "damage": self.damage.get(label, "")} for label, state in self.states.items()
            ],
            "routes": [asdict(route) for route in self.routes],
            "settings": {key: dict(zip(self.states, values, strict=True)) for key, values in self.settings.items()},
        }

    def records(self) -> Sequence[Mapping[str, Any]]:
        """A row for each route of each run, with the settings that differ."""
        number = {label: place for place, label in enumerate(self.states)}
        return [
            {**asdict(route), **{key: values[number[route.run]] for key, values in self.settings.items()}}
            for route in self.routes
        ]

    def tables(self) -> Sequence[ReportTable]:
        """What the runs reach and cost, and the settings that differ."""
        empty = {
            "kNN-1 %": not self.damage and all(route.knn1 is None for route in self.routes),
            "ms an image": all(route.milliseconds is None for route in self.routes),
        }
        kept = [number for number, column in enumerate(COLUMNS) if not empty.get(column, False)]
        columns = [COLUMNS[number] for number in kept]
        rows = [[route.cells()[number] for number in kept] for route in self.routes]
        waiting = [f"{label}: {state}" for label, state in self.states.items() if label not in {r.run for r in self.routes}]
        damaged = [f"{label}: {damage}" for label, damage in self.damage.items()]
        reached = ReportTable("What the runs reach and cost", columns, rows, note="\n".join([*waiting, *damaged]))
        if len(self.states) == 1:
            return [reached]
        settings = [(key, *map(_text, values)) for key, values in self.settings.items()]
        note = "" if settings else "no setting differs"
        return [reached, ReportTable("Settings that differ", ("setting", *self.states), settings, note=note)]

    def draw(self) -> Figure:
        """kNN-1 accuracy against MACs, and against milliseconds if they were measured: a line a run.

        Raises:
            ConfigError: If matplotlib is not installed.
        """
        timed = any(route.milliseconds is not None for route in self.routes)
        against = {"macs": "MACs an image, mean", "milliseconds": "milliseconds an image, one thread"}
        shown = list(against.items())[: 2 if timed else 1]
        figure = new_figure(6.4 * len(shown), 4.8)
        panels = figure.subplots(1, len(shown), squeeze=False)[0]
        for axes, (name, label) in zip(panels, shown, strict=True):
            self._draw(axes, name)
            axes.set_xlabel(label)
            axes.set_ylabel("kNN-1, top-1 on held-out images, %")
            axes.grid(alpha=0.3)
        lettering = Lettering(list(self.states))
        handles, labels = panels[0].get_legend_handles_labels()
        legend = figure.legend(handles, labels, loc="outside lower center", fontsize="small", frameon=False)
        for text in legend.get_texts():
            text.set_fontfamily(lettering.families)
        figure.suptitle("Accuracy against cost (hollow: the dense route)", fontsize="medium")
        return figure

    def _draw(self, axes: Axes, against: str) -> None:
        marks = "os^DPvX"
        lettering = Lettering(list(self.states))
        for number, label in enumerate(self.states):
            routes = [
                route for route in self.routes if route.run == label and None not in (route.knn1, getattr(route, against))
            ]
            places = sorted((getattr(route, against), route.knn1 or 0.0, route.route) for route in routes)
            look: dict[str, Any] = {"color": f"C{number}", "marker": marks[number % len(marks)]}
            x, y = ([place[axis] for place in places] for axis in (0, 1))
            axes.plot(x, y, linestyle="-", alpha=0.9, label=f" {lettering.text(label)}", **look)
            dense = [place for place in places if place[2] == str(Route.DENSE)]
            for there in dense:
                axes.plot(*there[:2], markerfacecolor="white", markersize=9, linestyle="", **look)


def compare(
    runs: Sequence[RunLike],
    *,
    time: bool = False,
    seconds: float = 10.0,
    data_root: str | Path | None = None,
    watchers: Sequence[Watcher] = (),
    progress: bool | Literal["auto"] = "auto",
) -> RunComparison:
    """Put runs beside each other. What they reach and cost is read from their results; nothing is computed for that.

    Args:
        runs: Folders, or what :func:`ssl_dc.train` returned.
        time: Whether to measure milliseconds an image on this CPU, which needs the images and compiles the network.
        seconds: How long each run is timed.
        data_root: Where the runs' data is now, if it has moved.
        watchers: Told of phases.
        progress: Whether to show progress, as in :func:`ssl_dc.train`.

    Raises:
        ConfigError: If there is no run.
        DataError: If times are to be measured and the images cannot be opened.
        RunError: If times are to be measured and a run has no trained model, or a file of a run cannot be read.
    """
    recorded = recorded_runs(runs)
    told = [*watchers, *progress_watchers(progress)]
    routes: list[ComparedRoute] = []
    for run in recorded:
        times = {}
        if time:
            with phase(told, f"measuring the time of {run.label}"):
                times = _times(moved_data(run.folder.load_model(), data_root), seconds)
        routes += [_compared(run, route, times.get(route)) for route in run.routes]
    damage = {run.label: run.damaged_result for run in recorded if run.damaged_result}
    return RunComparison(routes, {run.label: run.state for run in recorded}, _that_differ(recorded), damage)


def _times(model: Model, seconds: float) -> dict[str, float]:
    """Milliseconds of the routes that a result has: the dense one, and the gated one at the target budget."""
    found = milliseconds(model, seconds)
    return {str(route): took for route, took in found.items()}


def _compared(run: RecordedRun, route: str, took: float | None) -> ComparedRoute:
    found = run.routes[route]
    knn1, ratio, macs = (as_number(found.get(name)) for name in ("knn1", "ratio", "macs"))
    return ComparedRoute(run.label, route, knn1, ratio, macs, took)


def _that_differ(runs: Sequence[RecordedRun]) -> dict[str, list[Any]]:
    """The settings that are not the same in all runs. A run that has no such setting has None."""
    settings = [flattened(json.loads(dump(run.config))) for run in runs]
    keys = dict.fromkeys(key for each in settings for key in each)
    values = {key: [each.get(key) for each in settings] for key in keys}
    return {key: found for key, found in values.items() if any(value != found[0] for value in found)}


def _text(value: Any) -> str:
    return "-" if value is None else json.dumps(value) if isinstance(value, (list, dict, bool)) else str(value)
