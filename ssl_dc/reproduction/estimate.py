"""How long the trainings of a table or figure will take: an estimate, from runs that are done or from a constant."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from statistics import median

from torch import nn

from ssl_dc.assemble import build_network, build_objective
from ssl_dc.config import RunConfig
from ssl_dc.reproduction.plan import PlannedRun

TRAINING_IMAGES = {
    "cifar10": 50_000,
    "cifar100": 50_000,
    "stl10": 100_000,
    "imagenet100": 126_689,
    "digits": 1_437,
}
"""How many images each data set has to train on; nothing is opened to estimate a time."""

MACS_PER_SECOND = 3e10
"""What training does on 2 CPU cores: measured 2.3e10 (width 16, 32 px, augmentation included) to 4.6e10 (the paper's)."""

PASSES = 3
"""A training step costs about three forwards: the backward pass is two."""

VIEWS = 2


@dataclass(frozen=True)
class Estimate:
    """The time of trainings not yet done.

    Attributes:
        seconds: Of each run, in the order given; 0 for one that is done, None where the number of images is not known.
        basis: What the estimate rests on, in words.
    """

    seconds: Sequence[float | None]
    basis: str

    @property
    def total(self) -> float | None:
        """Of all runs together; None where one is not known."""
        known = [seconds for seconds in self.seconds if seconds is not None]
        return sum(known) if len(known) == len(self.seconds) else None


def estimate(
    dataset: str, runs: Iterable[tuple[PlannedRun, bool]], speed: Callable[[PlannedRun], float | None]
) -> Estimate:
    """The time that the trainings of a table or figure will take; evaluation comes on top.

    Args:
        dataset: The data set that the runs are on.
        runs: Each run, and whether it is done.
        speed: The images that a run trained on in a second, if it was trained here.
    """
    runs = list(runs)
    measured = {run.name: reached for run, _ in runs if (reached := speed(run))}
    rates = [measured[run.name] * macs_per_image(run.config) for run, _ in runs if run.name in measured]
    rate = median(rates) if rates else MACS_PER_SECOND
    basis = (
        f"from the speed of {len(rates)} runs in this folder"
        if rates
        else "from what 2 CPU cores do: a rough guess elsewhere"
    )
    return Estimate([0.0 if done else _seconds(dataset, run, rate) for run, done in runs], basis)


def macs_per_image(config: RunConfig) -> int:
    """What training on one image costs, in MACs: both views, forward and backward, encoder and heads."""
    # only what decides the shapes: the rest would make every run its own network
    return _macs_per_image(
        RunConfig(
            objective=config.objective, backbone=config.backbone, data=config.data.model_copy(update={"root": None})
        ).model_dump_json()
    )


@cache
def _macs_per_image(config_json: str) -> int:
    config = RunConfig.model_validate_json(config_json)
    network = build_network(config.model_copy(update={"budget": config.budget.model_copy(update={"target": 1.0})}))
    objective = build_objective(config, network.encoder.feature_dim)
    heads = sum(layer.weight.numel() for layer in objective.modules() if isinstance(layer, nn.Linear))
    return PASSES * VIEWS * (network.cost.dense_macs + heads)


def _seconds(dataset: str, run: PlannedRun, macs_per_second: float) -> float | None:
    images = _images(dataset, run)
    if images is None:
        return None
    training = run.config.training
    steps = training.epochs * (images // training.batch_size)
    return steps * training.batch_size * macs_per_image(run.config) / macs_per_second


def _images(dataset: str, run: PlannedRun) -> int | None:
    counts = [n for n in (TRAINING_IMAGES.get(dataset), run.config.data.limit) if n is not None]
    return min(counts, default=None)
