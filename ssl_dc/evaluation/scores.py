"""What the protocols that classify share: features of the labelled splits, the score of a route, and the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from ssl_dc.assemble import build_data_set
from ssl_dc.data.base import Labels, Splits
from ssl_dc.data.subsets import open_splits
from ssl_dc.evaluation.features import Features, extract, labels_of
from ssl_dc.evaluation.report import Report, ReportTable
from ssl_dc.model import Model
from ssl_dc.routes import Route

OFF_BUDGET = 0.05
"""How far from its budget what a route pays may be, as a share of the dense cost, before a command says so."""


@dataclass(frozen=True)
class RouteScore:
    """What one route reaches on held-out images.

    Attributes:
        top1: Top-1 accuracy in percent, mean over seeds.
        std: Standard deviation of the accuracy over seeds (with n - 1); None for a single seed.
        macs: Mean cost of a held-out image, in MACs.
        ratio: Mean cost as a share of the dense cost.
    """

    top1: float
    std: float | None
    macs: float
    ratio: float

    def row(self) -> tuple[str, ...]:
        """The cells of a table's row, after the route."""
        deviation = "" if self.std is None else f"{self.std:.2f}"
        return (f"{self.top1:.2f}", deviation, f"{self.macs:,.0f}", f"{self.ratio:.4f}")


@dataclass(frozen=True)
class Evaluation(Report):
    """The report of a protocol that classifies.

    Attributes:
        protocol: The protocol's name.
        settings: How it was run.
        train_images: How many images were learned from.
        test_images: How many held-out images were classified.
        routes: The score of each route.
    """

    protocol: str
    settings: dict[str, Any]
    train_images: int
    test_images: int
    routes: dict[Route, RouteScore]

    def as_json(self) -> dict[str, Any]:
        """The evaluation as plain values."""
        return {
            "protocol": self.protocol,
            **self.settings,
            "train_images": self.train_images,
            "test_images": self.test_images,
            "routes": {
                str(route): {"top1": score.top1, "std": score.std, "macs": round(score.macs), "ratio": score.ratio}
                for route, score in self.routes.items()
            },
        }

    def off_budget(self, trained_for: float | None) -> list[str]:
        """A sentence for each gated route that pays clearly more or less than its budget.

        Args:
            trained_for: The budget of routes that name none, as a share of the dense cost; None without gates.
        """
        said = []
        for route, score in self.routes.items():
            budget = trained_for if route.budget is None else route.budget
            if route.gated and isinstance(budget, float) and abs(score.ratio - budget) > OFF_BUDGET:
                verb = "trained" if route.budget is None else "asked"
                said.append(f"{route}: paid {score.ratio:.2f} of the dense cost on these images; {verb} for {budget:g}")
        return said

    def records(self) -> Sequence[Mapping[str, Any]]:
        """A row for each route."""
        return [{"route": str(route), **asdict(score)} for route, score in self.routes.items()]

    def tables(self) -> Sequence[ReportTable]:
        """What each route reaches and costs."""
        settings = ", ".join(f"{name} {value}" for name, value in self.settings.items())
        return [
            ReportTable(
                f"{self.protocol} ({settings}) on {self.test_images:,} held-out images",
                ("route", "top-1 %", "deviation", "MACs an image", "share of dense cost"),
                [(str(route), *score.row()) for route, score in self.routes.items()],
            )
        ]


@dataclass(frozen=True)
class FeatureSets:
    """Features of the two labelled splits on each route, computed once for any number of protocols.

    Attributes:
        train: Features to learn from.
        test: Features of the held-out images.
        train_labels: Classes of the former, (n,).
        test_labels: Classes of the latter, (m,).
        classes: How many classes there are.
        dense_macs: Cost of the dense route, for one image.
        device: Where to compute with them.
    """

    train: dict[Route, Features]
    test: dict[Route, Features]
    train_labels: Labels
    test_labels: Labels
    classes: int
    dense_macs: int
    device: torch.device


def own_splits(model: Model) -> Splits:
    """Open the data set that the model's config names."""
    return open_splits(build_data_set(model.config))


def extract_splits(model: Model, splits: Splits, *, routes: Sequence[Route] | None = None) -> FeatureSets:
    """Take the features of both labelled splits.

    Args:
        model: The model.
        splits: The images.
        routes: The routes to take; by default all that the model has.

    Raises:
        DataError: If a split has no labels.
    """
    # Labels come first: taking the features may last hours.
    train_labels, test_labels = labels_of(splits.evaluation_train), labels_of(splits.test)
    routes = model.routes if routes is None else routes
    workers = model.config.training.workers
    return FeatureSets(
        train=extract(model, splits.evaluation_train, routes, workers=workers),
        test=extract(model, splits.test, routes, workers=workers),
        train_labels=train_labels,
        test_labels=test_labels,
        classes=len(splits.classes),
        dense_macs=model.cost.dense_macs,
        device=model.device,
    )


def evaluation(
    protocol: str, settings: dict[str, Any], sets: FeatureSets, accuracies: Mapping[Route, Sequence[float]]
) -> Evaluation:
    """The report of a protocol that classifies features computed once.

    Args:
        protocol: The protocol's name.
        settings: How it was run.
        sets: The features.
        accuracies: For each route the top-1 accuracies in percent, one a seed.
    """
    routes = {route: route_score(some, sets.test[route], sets.dense_macs) for route, some in accuracies.items()}
    return Evaluation(protocol, settings, len(sets.train_labels), len(sets.test_labels), routes)


def route_score(accuracies: Sequence[float], test: Features, dense_macs: int) -> RouteScore:
    """The score of one route.

    Args:
        accuracies: Top-1 accuracies in percent, one a seed.
        test: The route's features of the held-out images.
        dense_macs: Cost of the dense route, for one image.
    """
    std = float(np.std(accuracies, ddof=1)) if len(accuracies) > 1 else None
    macs = float(test.macs.mean())
    return RouteScore(float(np.mean(accuracies)), std, macs, macs / dense_macs)
