"""The curve of a run: accuracy against cost over a range of budgets, and of other runs beside it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from ssl_dc.bench.examples import example_images
from ssl_dc.bench.timing import in_turns
from ssl_dc.compiled.torch_threads import torch_threads
from ssl_dc.evaluation.dialled import dialled
from ssl_dc.evaluation.drawing import described_run, new_figure
from ssl_dc.evaluation.knn import score_knn
from ssl_dc.evaluation.linear import score_linear
from ssl_dc.evaluation.options import CurveOptions
from ssl_dc.evaluation.other_data import on_other_data
from ssl_dc.evaluation.report import Report, ReportTable
from ssl_dc.evaluation.scores import FeatureSets, extract_splits, own_splits
from ssl_dc.model import Model
from ssl_dc.routes import Route
from ssl_dc.run_folder import RunFolder

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

IMAGES = 32
"""Images that times are measured on, one at a time."""


@dataclass(frozen=True)
class CurvePoint:
    """What a route reaches and costs.

    Attributes:
        route: The route, in words.
        ratio: Mean cost of a held-out image, as a share of the dense cost.
        macs: The same in MACs.
        knn1: Top-1 accuracy of the nearest neighbour, in percent.
        linear: Top-1 accuracy of a linear classifier, in percent, mean over seeds.
        linear_std: Its standard deviation over seeds; None for a single seed.
        milliseconds: Median time of an image in the executor, with one thread; None if it was not measured.
    """

    route: str
    ratio: float
    macs: float
    knn1: float
    linear: float
    linear_std: float | None
    milliseconds: float | None

    def cells(self) -> tuple[str, ...]:
        """The cells of a table's row, after the run."""
        deviation = "" if self.linear_std is None else f" ± {self.linear_std:.2f}"
        took = "" if self.milliseconds is None else f"{self.milliseconds:.3f}"
        accuracies = (f"{self.knn1:.2f}", f"{self.linear:.2f}{deviation}")
        return (self.route, f"{self.ratio:.4f}", f"{self.macs:,.0f}", *accuracies, took)


@dataclass(frozen=True)
class RunCurve:
    """The points of a run: the dense route, and the gated route at each budget, ascending.

    Attributes:
        run: The run, in words.
        test_images: How many held-out images its accuracies and costs are of.
        points: Its points.
    """

    run: str
    test_images: int
    points: Sequence[CurvePoint]


@dataclass(frozen=True)
class Curve(Report):
    """Accuracy against cost, of one run or of several.

    Attributes:
        curves: The runs.
    """

    curves: Sequence[RunCurve]

    @property
    def timed(self) -> bool:
        """Whether times were measured."""
        return any(point.milliseconds is not None for curve in self.curves for point in curve.points)

    def as_json(self) -> dict[str, Any]:
        """The points as plain values."""
        return {"protocol": "curve", "runs": [asdict(curve) for curve in self.curves]}

    def records(self) -> Sequence[Mapping[str, Any]]:
        """A row for each point, with its run."""
        return [{"run": curve.run, **asdict(point)} for curve in self.curves for point in curve.points]

    def tables(self) -> Sequence[ReportTable]:
        """A table for each run."""
        columns = ("route", "share of dense cost", "MACs an image", "kNN-1 %", "linear %", "ms an image")
        kept = len(columns) if self.timed else len(columns) - 1
        return [
            ReportTable(
                f"{curve.run}, on {curve.test_images:,} held-out images",
                columns[:kept],
                [point.cells()[:kept] for point in curve.points],
            )
            for curve in self.curves
        ]

    def draw(self) -> Figure:
        """Accuracy against MACs, and against milliseconds if they were measured: a line a run, its dense route as a point.

        Raises:
            ConfigError: If matplotlib is not installed.
        """
        figure = new_figure(6.4 * (2 if self.timed else 1), 4.8)
        panels = figure.subplots(1, 2 if self.timed else 1, squeeze=False)[0]
        for axes, (against, label) in zip(
            panels, (("macs", "MACs an image, mean"), ("milliseconds", "milliseconds an image, one thread")), strict=False
        ):
            self._draw(axes, against)
            axes.set_xlabel(label)
            axes.set_ylabel("top-1 on held-out images, %")
            axes.grid(alpha=0.3)
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", fontsize="small", frameon=False)
        images = " and ".join(sorted({f"{curve.test_images:,}" for curve in self.curves}))
        figure.suptitle(f"Accuracy against cost, on {images} held-out images", fontsize="medium")
        return figure

    def _draw(self, axes: Axes, against: str) -> None:
        for number, curve in enumerate(self.curves):
            for measure, style, mark in (("linear", "-", "o"), ("knn1", "--", "^")):
                points = [point for point in curve.points if getattr(point, against) is not None]
                gated = [point for point in points if point.route != str(Route.DENSE)]
                x, y = ([getattr(point, name) for point in gated] for name in (against, measure))
                name = f"{curve.run}: {'linear' if measure == 'linear' else 'kNN-1'}"
                axes.plot(x, y, style + mark, color=f"C{number}", markersize=4, label=name)
                for dense in (point for point in points if point.route == str(Route.DENSE)):
                    place = (getattr(dense, against), getattr(dense, measure))
                    axes.plot(*place, marker=mark, color=f"C{number}", markersize=9, markerfacecolor="white", linestyle="")
                    axes.annotate(
                        "dense", place, textcoords="offset points", xytext=(0, -14), ha="center", fontsize="x-small"
                    )


def curve(model: Model, options: CurveOptions) -> Curve:
    """Run the protocol ``curve`` on the data set of the model's config, and of the configs of the runs beside it.

    The budgets are those of ``--budget``, or else those of each run's training. Without gates a run has its dense point. If
    the model is evaluated on another data set than its own, so are the runs beside it.

    Raises:
        ConfigError: If there is no run at a place of ``beside``.
        DataError: If images cannot be opened or have no labels.
        RunError: If the training of a run beside has not ended.
    """
    models = [model, *(_other(path, model) for path in options.beside or ())]
    return Curve(_told_apart([_curve(one, options) for one in models]))


def at_trained_budgets(model: Model) -> Model:
    """The model with a gated route for each budget of its training, unless other budgets were chosen for it."""
    budgets = model.config.budget.budgets
    if not model.has_gates or len(budgets) < 2 or model.gated_routes != (Route.GATED,):
        return model
    return model.at_budget(*budgets)


def _other(path: Path, like: Model) -> Model:
    """The model of another run, at the budgets and on the data set that were chosen for this one."""
    model = RunFolder.existing(path).load_model(like.device)
    chosen = [route.budget for route in like.gated_routes if isinstance(route.budget, float)]
    if chosen and model.has_gates:
        model = dialled(model, chosen)
    return model if like.config is like.trained_config else on_other_data(model, like.config.data)


def _curve(model: Model, options: CurveOptions) -> RunCurve:
    model = at_trained_budgets(model)
    sets = extract_splits(model, own_splits(model))
    return RunCurve(described_run(model.trained_config), len(sets.test_labels), list(curve_points(model, sets, options)))


def curve_points(model: Model, sets: FeatureSets, options: CurveOptions) -> Iterator[CurvePoint]:
    """The points of a run, the dense one first.

    Args:
        model: The run's model; each of its routes is a point.
        sets: Features of its images, on each route.
        options: How the features are classified, and whether times are measured.
    """
    knn, linear = score_knn(sets), score_linear(sets, seeds=options.seeds, epochs=options.epochs)
    times = milliseconds(model, options.seconds) if options.time else {}
    for route in model.routes:
        score = linear.routes[route]
        accuracies = (knn.routes[route].top1, score.top1, score.std)
        yield CurvePoint(str(route), score.ratio, score.macs, *accuracies, times.get(route))


def milliseconds(model: Model, seconds: float) -> dict[Route, float]:
    """Median time of single images of the model's data set by each route, on one thread of the CPU."""
    images = example_images(model, IMAGES).split(1)
    with torch_threads(1):
        dense = model.compile_dense(threads=1)
        ways: dict[str, Callable[[int], Any]] = {str(Route.DENSE): lambda number: dense(images[number % len(images)])}
        if model.has_gates:
            gated = model.compile_gated(threads=1)

            def call(budget: Any, number: int) -> Tensor:
                return gated(images[number % len(images)], budget).features

            ways |= {str(route): partial(call, route.budget) for route in model.gated_routes}
        times = in_turns(ways, seconds=seconds)
    return {route: times.timing(str(route)).median for route in model.routes}


def _told_apart(curves: Sequence[RunCurve]) -> list[RunCurve]:
    """The curves; those of runs that are the same in words are numbered."""
    names = [curve.run for curve in curves]
    return [
        replace(curve, run=f"{curve.run} ({names[: number + 1].count(curve.run)})") if names.count(curve.run) > 1 else curve
        for number, curve in enumerate(curves)
    ]
