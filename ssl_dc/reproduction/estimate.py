"""Estimates of how long the trainings of a table or figure take, from finished runs or else from a constant."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from ssl_dc.evaluation.report import Report, ReportTable
from ssl_dc.plugins.options import DataOptions
from ssl_dc.plugins.registry import registry
from ssl_dc.quantities import in_words
from ssl_dc.reproduction.plan import PlannedRun
from ssl_dc.training_cost import training_macs

TRAINING_IMAGES = {"imagenet100": 126_689}
"""The number of training images of each data set that is no part. No data set is opened to estimate a time."""

MACS_PER_SECOND = 3e10
"""Speed of training on 2 CPU cores. Measured: 2.3e10 (width 16, 32 px, augmented) to 4.6e10 (the paper's network)."""


@dataclass(frozen=True)
class Estimate(Report):
    """The runs of a table or figure, and the time that the remaining ones take.

    Attributes:
        runs: The runs.
        done: For each run, whether it is done.
        seconds: Estimated training time of each run. 0 if it is done, None if its number of images is not known.
        basis: The basis of the estimate, in words.
    """

    runs: Sequence[PlannedRun]
    done: Sequence[bool]
    seconds: Sequence[float | None]
    basis: str

    @property
    def total(self) -> float | None:
        """Estimated time of all runs together. None if the time of one run is not known."""
        known = [seconds for seconds in self.seconds if seconds is not None]
        return sum(known) if len(known) == len(self.seconds) else None

    def as_json(self) -> dict[str, Any]:
        """The estimate as plain values."""
        return {
            "basis": self.basis,
            "seconds": self.total,
            "runs": [
                {"run": run.name, "epochs": run.config.training.epochs, "done": done, "seconds": seconds}
                for run, done, seconds in zip(self.runs, self.done, self.seconds, strict=True)
            ],
        }

    def tables(self) -> Sequence[ReportTable]:
        """Which runs are done, and how long the others may take."""
        rows = [
            (run.name, str(run.config.training.epochs), "yes" if done else "", "" if done else in_words(seconds))
            for run, done, seconds in zip(self.runs, self.done, self.seconds, strict=True)
        ]
        return [
            ReportTable(
                f"{len(self.runs)} runs, {sum(self.done)} done",
                ("run", "epochs", "done", "estimated time"),
                rows,
                total=("all remaining", "", "", in_words(self.total)),
                note=f"Times are estimates of the trainings alone, {self.basis}.",
            )
        ]


def estimate(
    dataset: str, runs: Iterable[tuple[PlannedRun, bool]], speed: Callable[[PlannedRun], float | None]
) -> Estimate:
    """Estimate how long the trainings of a table or figure take. Evaluation is not included.

    Args:
        dataset: The data set that the runs are on.
        runs: Each run, and whether it is done.
        speed: Gives the training speed of a run in images per second, or None if it was not trained here.
    """
    listed = list(runs)
    measured = {run.name: reached for run, _ in listed if (reached := speed(run))}
    rates = [measured[run.name] * training_macs(run.config) for run, _ in listed if run.name in measured]
    rate = median(rates) if rates else MACS_PER_SECOND
    basis = (
        f"from the speed of {len(rates)} runs in this folder"
        if rates
        else "from what 2 CPU cores do: a rough guess elsewhere"
    )
    return Estimate(
        runs=[run for run, _ in listed],
        done=[done for _, done in listed],
        seconds=[0.0 if done else _seconds(dataset, run, rate) for run, done in listed],
        basis=basis,
    )


def _seconds(dataset: str, run: PlannedRun, macs_per_second: float) -> float | None:
    images = _images(dataset, run)
    if images is None:
        return None
    training = run.config.training
    steps = training.epochs * (images // training.batch_size)
    return steps * training.batch_size * training_macs(run.config) / macs_per_second


def _images(dataset: str, run: PlannedRun) -> int | None:
    counts = [n for n in (_published(dataset), run.config.data.limit) if n is not None]
    return min(counts, default=None)


def _published(dataset: str) -> int | None:
    """The number of training images of a data set that is always the same."""
    options = registry().find("data", dataset).options_model() if registry().has("data", dataset) else None
    if options is None or not issubclass(options, DataOptions) or options.published is None:
        return TRAINING_IMAGES.get(dataset)
    return options.published.train
