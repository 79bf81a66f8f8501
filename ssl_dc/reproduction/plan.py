"""The runs that the paper's systems need at a scale. Each has a complete config and a shared name."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ssl_dc.config import RunConfig, resolve, uniform_layer
from ssl_dc.plugins.registry import registry
from ssl_dc.reproduction.systems import System

Scale = Literal["paper", "small"]

SCALES: dict[Scale, dict[str, Any]] = {
    # the data set's own recipe is the paper's, and the paper has the penalty alone
    "paper": {"budget.control": "penalty"},
    # docs/results/small-scale.md explains the choice
    "small": {
        "objective.expander_width": 512,
        "backbone.width": 16,
        "backbone.stem": "strided",
        "data.limit": 10_000,
        "data.test_limit": 2_000,
        "training.epochs": 10,
        "training.batch_size": 256,
        "training.warmup_share": 0.1,
        "optimizer.name": "adamw",
        "optimizer.lr": 2e-3,
        "gating.noise": 0.0,
    },
}


GATE_WARMUP_EPOCHS: dict[Scale, int] = {"paper": 10, "small": 1}
"""Epochs without gates, for the system with gate warm-up. At small scale it is the least possible number."""


@dataclass(frozen=True)
class PlannedRun:
    """One training.

    Attributes:
        group: Scale and data set, as the first part of the name.
        system: What is trained.
        budget: The budget, as a share of the dense cost. None for a system without gates.
        seed: The run's seed.
        config: The complete config.
    """

    group: str
    system: System
    budget: float | None
    seed: int
    config: RunConfig

    @property
    def name(self) -> str:
        """A folder name, such as ``small-cifar10-dual-0.3-seed0``. Tables and figures that need the same run share it."""
        budget = "" if self.budget is None else f"-{self.budget:g}"
        return f"{self.group}-{self.system.name}{budget}-seed{self.seed}"


@dataclass(frozen=True)
class Scope:
    """The data that systems are run on, at which scale, and how often.

    Attributes:
        scale: ``paper`` or ``small``.
        dataset: ``cifar10``, ``cifar100``, ``stl10``, ``imagenet100`` (a folder of images), or any other data set.
        data_root: Folder with its images. Parquet files in it are read as such.
        budgets: Shares of the dense cost.
        seeds: Seeds of the runs.
    """

    scale: Scale
    dataset: str
    data_root: Path | None
    budgets: Sequence[float]
    seeds: Sequence[int]


def planned_runs(systems: Iterable[System], scope: Scope) -> Iterator[PlannedRun]:
    """Every run that the systems need, system by system.

    Raises:
        ConfigError: If a run's config is not valid.
    """
    for system in systems:
        for budget in dict.fromkeys(scope.budgets) if system.budgeted else (None,):
            for seed in scope.seeds:
                config = _config(scope, system, budget, seed)
                yield PlannedRun(f"{scope.scale}-{scope.dataset}", system, budget, seed, config)


def _config(scope: Scope, system: System, budget: float | None, seed: int) -> RunConfig:
    settings = {**_data(scope), **SCALES[scope.scale], **system.settings, "seed": seed}
    if budget is None:
        settings = {key: value for key, value in settings.items() if not key.startswith(_GATED_ONLY)}
    else:
        settings["budget.target"] = budget
    if system.gate_warmup:
        settings["training.gate_warmup"] = GATE_WARMUP_EPOCHS[scope.scale]
    return resolve([uniform_layer(settings, f"reproduce {system.name}")]).config


_GATED_ONLY = ("budget.", "gating.noise")


PART_OF_DATASET = {"imagenet100": "folder"}
"""The data set part for each of the paper's names that is not a part."""


def data_part(dataset: str, root: Path | None) -> str:
    """The part that reads a data set: ``parquet`` if its folder contains parquet files, otherwise the part of its name."""
    if root is not None and any(root.rglob("*.parquet")):
        return "parquet"
    return PART_OF_DATASET.get(dataset, dataset)


def _data(scope: Scope) -> dict[str, Any]:
    """The data set's settings. Parquet files are read with the recipe of the data set that they contain."""
    name = data_part(scope.dataset, None)
    settings: dict[str, Any] = {"data.name": name}
    if scope.data_root is None:
        return settings
    if data_part(scope.dataset, scope.data_root) == "parquet":
        options = registry().find("data", name).options_model()
        fields = {f"data.{field}": options.model_fields[field].default for field in ("image_size", "mean", "std")}
        settings = {**options.recipe, **fields, "data.name": "parquet"}
    return {**settings, "data.root": str(scope.data_root)}
