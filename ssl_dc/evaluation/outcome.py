"""What a training reports at its end: whether it helped, what each route costs, and what to try next."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from ssl_dc.config import RunConfig
from ssl_dc.data.base import Labels, Splits
from ssl_dc.data.prepared import Prepared
from ssl_dc.evaluation.cost import cost_images
from ssl_dc.evaluation.features import Extractor, Features, check_finite, extract, extract_with, extractor, labels_of
from ssl_dc.evaluation.knn import percent_correct, shared_predictions
from ssl_dc.evaluation.paired import SURE, Difference, difference
from ssl_dc.evaluation.report import Report, ReportTable
from ssl_dc.model import Model
from ssl_dc.routes import Route

PIXELS = 16
"""Side to which images are averaged down before their raw pixels are compared."""

BUDGET_TOLERANCE = 0.02
"""How far from the budget what is paid may be, as a share of the dense cost, for the budget to hold."""

FEW_STEPS = 1000
"""A training of fewer steps may not have learned for lack of them."""

HELPED = {1: "training helped", 0: "NO DIFFERENCE by training is seen", -1: "TRAINING MADE IT WORSE"}
THAN_PIXELS = {1: "better than", 0: "not clearly other than", -1: "WORSE than"}
"""What the verdict of a difference is called."""


RUN = "RUN"
"""Stands for the folder of the run in the advice, which ``result.json`` keeps: a run may be moved."""
DIFFERENCES = ("over_untrained", "over_pixels")
"""The attributes of a route's outcome that are differences."""


@dataclass(frozen=True)
class RouteOutcome:
    """One route of a finished run.

    Attributes:
        knn1: kNN-1 top-1 accuracy in percent; None without labelled images.
        knn1_untrained: The same of the network that training started from.
        over_untrained: What training added; None without labelled images.
        over_pixels: How much better the features are than raw pixels; None without labelled images.
        macs: Mean cost of an image, in MACs.
        ratio: Mean cost as a share of the dense cost.
        ratio_error: Standard error of ``ratio`` over draws of the images.
    """

    knn1: float | None
    knn1_untrained: float | None
    over_untrained: Difference | None
    over_pixels: Difference | None
    macs: float
    ratio: float
    ratio_error: float = 0.0

    @property
    def finding(self) -> str:
        """Whether training helped, in words; nothing without labelled images."""
        if self.over_untrained is None or self.over_pixels is None:
            return ""
        helped, than_pixels = HELPED[self.over_untrained.verdict], THAN_PIXELS[self.over_pixels.verdict]
        return f"{helped} ({self.over_untrained} points); {than_pixels} raw pixels ({self.over_pixels})."

    def record(self) -> dict[str, float | None]:
        """The numbers of a row, after the route; a difference is given in points."""
        points = {name: None if (by := getattr(self, name)) is None else by.points for name in DIFFERENCES}
        return {**vars(self), **points}

    @property
    def has_accuracy(self) -> bool:
        """Whether there were labelled images to measure accuracy on."""
        return self.knn1 is not None

    def accuracies(self) -> tuple[str, ...]:
        """The cells of a table's row that tell of accuracy."""
        return tuple("-" if top1 is None else f"{top1:.2f}" for top1 in (self.knn1, self.knn1_untrained))

    def costs(self) -> tuple[str, ...]:
        """The cells of a table's row that tell of cost."""
        return (f"{self.macs:,.0f}", f"{self.ratio:.4f}")


@dataclass(frozen=True)
class Outcome(Report):
    """The end of a run.

    Attributes:
        routes: What each route reaches and costs.
        measured_on: Which images it was measured on, in words.
        dense_macs: Cost of the dense route, for one image.
        budget: The budget asked for, as a share of the dense cost; None without gates.
        knn1_pixels: kNN-1 top-1 accuracy of raw pixels in percent; None without labelled images.
        advice: What to try next, a sentence each. In its commands ``RUN`` stands for the folder of the run: see
            :meth:`at`.
        started_from: What training started from: ``untrained``, or ``initial`` if it was given weights.
    """

    routes: dict[Route, RouteOutcome]
    measured_on: str
    dense_macs: int
    budget: float | None
    knn1_pixels: float | None = None
    advice: tuple[str, ...] = ()
    started_from: str = "untrained"

    @property
    def budget_holds(self) -> bool | None:
        """Whether what is paid is the budget, but for 0.02 of the dense cost or two standard errors; None without gates."""
        if self.budget is None:
            return None
        gated = self.routes[Route.GATED]
        return abs(gated.ratio - self.budget) <= max(BUDGET_TOLERANCE, SURE * gated.ratio_error)

    @property
    def few_images(self) -> bool:
        """Whether the images are so few that what is paid is hardly known: to 0.02 and to a tenth of the budget."""
        if self.budget is None:
            return False
        return SURE * self.routes[Route.GATED].ratio_error > max(BUDGET_TOLERANCE, self.budget / 10)

    @property
    def findings(self) -> tuple[str, ...]:
        """Whether training helped and whether the budget holds, a sentence each."""
        found = [f"{route}: {reached.finding}" for route, reached in self.routes.items() if reached.finding]
        if self.knn1_pixels is None:
            found.append("There are no labels here that could tell whether training helped.")
        else:
            found.append(
                f"Raw pixels reach {self.knn1_pixels:.2f} %. ± is one standard error; two are needed for a difference."
            )
        if self.budget is not None:
            paid = f"{self.routes[Route.GATED].ratio:.4f} ± {self.routes[Route.GATED].ratio_error:.4f}"
            holds = "it holds" if self.budget_holds else "IT IS MISSED"
            if self.budget_holds and self.few_images:
                holds = "these are too few images to tell whether it holds"
            found.append(f"budget: {self.budget:g} of the dense cost was asked for, {paid} is paid: {holds}.")
        return tuple(found)

    def as_json(self) -> dict[str, Any]:
        """The outcome as plain values, as in ``result.json``."""
        return {
            **vars(self),
            "routes": {str(route): asdict(reached) for route, reached in self.routes.items()},
            "budget_holds": self.budget_holds,
            "findings": list(self.findings),
            "advice": list(self.advice),
        }

    def records(self) -> Sequence[Mapping[str, Any]]:
        """A row for each route: its accuracies in percent, what training added to them in points, and its cost."""
        return [{"route": str(route), **reached.record()} for route, reached in self.routes.items()]

    def at(self, folder: Path) -> Outcome:
        """The same with the folder of the run in the commands of the advice, so that they can be pasted into a shell."""
        return replace(self, advice=tuple(with_folder(sentence, folder) for sentence in self.advice))

    def tables(self) -> Sequence[ReportTable]:
        """What each route reaches and costs, what that says, and what to try next.

        Without labels there are no columns of accuracy.
        """
        advice = [f"Next: {sentence}" for sentence in self.advice]
        note = "\n".join([*self.findings, *advice])
        if not any(reached.has_accuracy for reached in self.routes.values()):
            rows = [(str(route), *reached.costs()) for route, reached in self.routes.items()]
            return [ReportTable(f"cost, on {self.measured_on}", ("route", *COST_COLUMNS), rows, note=note)]
        columns = ("route", "top-1 %", f"{self.started_from} %", *COST_COLUMNS)
        rows = [(str(route), *reached.accuracies(), *reached.costs()) for route, reached in self.routes.items()]
        return [ReportTable(f"kNN-1 and cost, on {self.measured_on}", columns, rows, note=note)]


COST_COLUMNS = ("MACs an image", "share of dense cost")


def with_folder(sentence: str, folder: Path) -> str:
    """A sentence of the advice with the folder of the run in the place of ``RUN``, quoted for a shell."""
    return re.sub(rf"\b{RUN}\b", lambda _: shlex.quote(str(folder)), sentence)


def outcome(config: RunConfig, model: Model, splits: Splits, initial: Model | None = None) -> Outcome:
    """Evaluate a trained model, the one that it started from, and raw pixels, on held-out images if there are any.

    In a launch of several processes all of them call it, and each gets the whole.

    Args:
        config: The run's config.
        model: What was trained.
        splits: The run's images.
        initial: The model that training started from, if its weights were not drawn.

    Raises:
        DataError: If an image cannot be read.
        RunError: If features are not finite.
    """
    labelled = len(splits.test) > 0 and bool(splits.classes)
    found = _with_accuracy(config, model, splits, initial) if labelled else _cost_only(config, model, splits)
    started_from = "untrained" if initial is None else "initial"
    steps = config.training.epochs * (len(splits.train) // config.training.batch_size)
    return Outcome(**{**vars(found), "advice": advice(found, config, steps), "started_from": started_from})


def advice(found: Outcome, config: RunConfig, steps: int) -> tuple[str, ...]:
    """What to try next, a sentence each.

    Args:
        found: What was reached.
        config: The run's config.
        steps: How many steps were trained for.
    """
    verdicts = {route: reached.over_untrained.verdict for route, reached in found.routes.items() if reached.over_untrained}
    said = []
    if not verdicts:
        said.append(f"see what it learned: ssl-dc report {RUN}")
        said.append(f"evaluate it on a labelled data set: ssl-dc evaluate {RUN} --eval-data NAME --eval-data-root FOLDER")
        said.append(f"write the features of pictures to a file: ssl-dc embed {RUN} FOLDER -o features.parquet")
        said.append(f"write the network to a file for other programs: ssl-dc export {RUN}")
    elif min(verdicts.values()) > 0:
        said.append(f"more epochs may add to it; a linear classifier says more: ssl-dc evaluate {RUN} --protocol linear")
    if any(verdict <= 0 for verdict in verdicts.values()) and steps < FEW_STEPS:
        training = config.training
        said.append(
            f"{steps:,} steps are few to learn from: raise --epochs (now {training.epochs}) or lower --batch-size (now"
            f" {training.batch_size})."
        )
    worse = [str(route) for route, verdict in verdicts.items() if verdict < 0]
    if worse:
        said.append(
            f"training took away from the {' and the '.join(worse)} features: lower --lr (now {config.optimizer.lr:g}), and"
            " look in metrics.jsonl for an embedding whose standard deviation or rank falls."
        )
    if verdicts.get(Route.GATED, 1) <= 0 < verdicts.get(Route.DENSE, 0):
        said.append(
            "the gated route lags behind the dense one: raise --budget, or let the gates begin later: --gate-warmup."
        )
    beaten = [reached.over_pixels.verdict < 0 for reached in found.routes.values() if reached.over_pixels]
    if beaten and all(beaten):
        said.append(
            "raw pixels beat the features: the views may hide what tells these images apart (ssl-dc plugins show"
            f" {config.views.name}), or the network is not trained enough."
        )
    if found.budget_holds is False:
        said.append(
            "hold the gates to the budget: --budget-control adaptive."
            if config.budget.control == "penalty"
            else f"the gates come no nearer to the budget: ask for {found.routes[Route.GATED].ratio:.2f}, or train longer."
        )
    return tuple(said)


def _with_accuracy(config: RunConfig, model: Model, splits: Splits, initial: Model | None) -> Outcome:
    begun = (Model.untrained(config, model.cost) if initial is None else initial).to(model.device)
    after = {route: f"the features of the {route} route" for route in model.routes}
    before = {route: f"the first features of the {route} route" for route in model.routes}
    pixels = "the pixels"
    extractors: dict[str, Extractor] = {pixels: _pixels}
    for route in model.routes:
        extractors[after[route]] = extractor(model, route)
        extractors[before[route]] = extractor(begun, route)
    # One pass over the images serves all of them.
    train, test = (
        extract_with(Prepared(images, model.transform), extractors, model.device, workers=config.training.workers)
        for images in (splits.evaluation_train, splits.test)
    )
    train_labels, labels = labels_of(splits.evaluation_train), labels_of(splits.test)

    def predicted(name: str) -> Labels:
        for some in (train[name].features, test[name].features):
            check_finite(some, name)
        return shared_predictions(
            train[name].features, train_labels, test[name].features, k=1, metric="euclidean", device=model.device
        )

    by_pixels = predicted(pixels)
    routes = {}
    for route in model.routes:
        trained, started_from = predicted(after[route]), predicted(before[route])
        routes[route] = RouteOutcome(
            knn1=percent_correct(trained, labels),
            knn1_untrained=percent_correct(started_from, labels),
            over_untrained=difference(labels, trained, started_from),
            over_pixels=difference(labels, trained, by_pixels),
            **_cost(test[after[route]], model.cost.dense_macs),
        )
    described = cost_images(splits)[1]
    knn1_pixels = percent_correct(by_pixels, labels)
    return Outcome(routes, described, model.cost.dense_macs, config.budget.target, knn1_pixels)


def _cost_only(config: RunConfig, model: Model, splits: Splits) -> Outcome:
    images, described = cost_images(splits)
    features = extract(model, images, model.routes, workers=config.training.workers)
    routes = {
        route: RouteOutcome(None, None, None, None, **_cost(some, model.cost.dense_macs))
        for route, some in features.items()
    }
    return Outcome(routes, described, model.cost.dense_macs, config.budget.target)


def _cost(features: Features, dense_macs: int) -> dict[str, float]:
    """What a route's features cost, under the names that a route's outcome has for it."""
    macs, n = features.macs, len(features.macs)
    error = float(macs.std(ddof=1)) / n**0.5 if n > 1 else 0.0
    return {"macs": float(macs.mean()), "ratio": float(macs.mean()) / dense_macs, "ratio_error": error / dense_macs}


def _pixels(x: Tensor) -> Features:
    """Raw pixels as features: images (N, 3, H, W), averaged down to 16 x 16 if they are larger."""
    if x.shape[-1] > PIXELS:
        x = F.adaptive_avg_pool2d(x, PIXELS)
    return Features(x.flatten(start_dim=1).float().cpu().numpy(), np.zeros(len(x)), {})
