"""What a training run reports at its end: kNN-1 of each route, trained and untrained, and what each costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ssl_dc.config import RunConfig
from ssl_dc.data.base import Splits
from ssl_dc.evaluation.cost import cost_images
from ssl_dc.evaluation.features import extract
from ssl_dc.evaluation.knn import score_knn
from ssl_dc.evaluation.report import Report, ReportTable
from ssl_dc.evaluation.scores import extract_splits
from ssl_dc.model import Model
from ssl_dc.routes import Route


@dataclass(frozen=True)
class RouteOutcome:
    """One route of a finished run.

    Attributes:
        knn1: kNN-1 top-1 accuracy in percent; None without labelled images.
        knn1_untrained: The same for the network that training started from.
        macs: Mean cost of an image, in MACs.
        ratio: The same as a share of the dense cost.
    """

    knn1: float | None
    knn1_untrained: float | None
    macs: float
    ratio: float

    def cells(self) -> tuple[str, ...]:
        """The cells of a table's row, after the route."""
        accuracies = ("-" if top1 is None else f"{top1:.2f}" for top1 in (self.knn1, self.knn1_untrained))
        return (*accuracies, f"{self.macs:,.0f}", f"{self.ratio:.4f}")


@dataclass(frozen=True)
class Outcome(Report):
    """The end of a run.

    Attributes:
        routes: What each route reaches and costs.
        measured_on: Which images, in words.
        dense_macs: Cost of the dense route, for one image.
        budget: What was asked for, as a share of the dense cost; None without gates.
    """

    routes: dict[Route, RouteOutcome]
    measured_on: str
    dense_macs: int
    budget: float | None

    def as_json(self) -> dict[str, Any]:
        """The outcome as plain values, as in ``result.json``."""
        routes = {str(route): asdict(reached) for route, reached in self.routes.items()}
        return {**vars(self), "routes": routes}

    def tables(self) -> Sequence[ReportTable]:
        """What each route reaches and costs."""
        asked = (
            "" if self.budget is None else f"budget asked for: {self.budget:g} of the dense cost, {self.dense_macs:,} MACs"
        )
        return [
            ReportTable(
                f"kNN-1 and cost, on {self.measured_on}",
                ("route", "top-1 %", "untrained %", "MACs an image", "share of dense cost"),
                [(str(route), *reached.cells()) for route, reached in self.routes.items()],
                note=asked,
            )
        ]


def outcome(config: RunConfig, model: Model, splits: Splits) -> Outcome:
    """Evaluate a trained model and the one it started from, on held-out images if there are any."""
    labelled = len(splits.test) > 0 and splits.test.labels is not None
    routes = _with_accuracy(config, model, splits) if labelled else _cost_only(config, model, splits)
    return Outcome(routes, cost_images(splits)[1], model.cost.dense_macs, config.budget.target)


def _with_accuracy(config: RunConfig, model: Model, splits: Splits) -> dict[Route, RouteOutcome]:
    untrained = Model.untrained(config, model.cost).to(model.device)
    after, before = (score_knn(extract_splits(each, splits)) for each in (model, untrained))
    return {
        route: RouteOutcome(score.top1, before.routes[route].top1, score.macs, score.ratio)
        for route, score in after.routes.items()
    }


def _cost_only(config: RunConfig, model: Model, splits: Splits) -> dict[Route, RouteOutcome]:
    features = extract(model, cost_images(splits)[0], model.routes, workers=config.training.workers)
    return {
        route: RouteOutcome(None, None, float(some.macs.mean()), float(some.macs.mean()) / model.cost.dense_macs)
        for route, some in features.items()
    }
