"""Which runs a table needs at a scale: each a complete config, and a name that runs of other tables share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ssl_dc.config import RunConfig, resolve, uniform_layer
from ssl_dc.errors import ConfigError
from ssl_dc.plugins import registry
from ssl_dc.reproduction.systems import TABLES, System

Scale = Literal["paper", "small"]

SCALES: dict[Scale, dict[str, Any]] = {
    # the data set's own recipe is the paper's; its runs have the paper's penalty
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
"""Epochs without gates of the system with gate warm-up: at small scale the least there is."""


@dataclass(frozen=True)
class PlannedRun:
    """One training.

    Attributes:
        group: What runs are told apart by, besides system, budget and seed: scale and data set.
        system: What is trained.
        budget: The share of the dense cost asked for; None for a system without gates.
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
        """A folder name, such as ``small-cifar10-dual-0.3-seed0``; tables that need the same run share it."""
        budget = "" if self.budget is None else f"-{self.budget:g}"
        return f"{self.group}-{self.system.name}{budget}-seed{self.seed}"


@dataclass(frozen=True)
class Request:
    """What is to be reproduced.

    Attributes:
        table: Name of the table, such as ``table1``.
        scale: ``paper`` or ``small``.
        dataset: ``cifar10``, ``cifar100``, ``stl10``, ``imagenet100`` (a folder of images), or any other data set.
        data_root: Folder that holds its images; parquet files there are read as such.
        budgets: Shares of the dense cost.
        seeds: Seeds of the runs.
        to: The data set that is transferred to, for a table of transfers; else None.
        to_root: Folder that holds that one's images.

    Raises:
        ConfigError: If a table of transfers has no ``to``, or another table has one.
    """

    table: str
    scale: Scale
    dataset: str
    data_root: Path | None
    budgets: Sequence[float]
    seeds: Sequence[int]
    to: str | None = None
    to_root: Path | None = None

    def __post_init__(self) -> None:
        transfers = TABLES[self.table].metric == "transfer"
        if transfers and self.to is None:
            raise ConfigError(f"{self.table} transfers to another data set; name it by --to, such as --to stl10")
        if not transfers and (self.to or self.to_root) is not None:
            raise ConfigError(f"{self.table} transfers to no other data set; leave out --to and --to-root")


def planned_runs(request: Request) -> Iterator[PlannedRun]:
    """Every run that the table needs, system by system."""
    for _, system in TABLES[request.table].systems:
        for budget in dict.fromkeys(request.budgets) if system.budgeted else (None,):
            for seed in request.seeds:
                yield PlannedRun(
                    f"{request.scale}-{request.dataset}", system, budget, seed, _config(request, system, budget, seed)
                )


def _config(request: Request, system: System, budget: float | None, seed: int) -> RunConfig:
    settings = {**_data(request), **SCALES[request.scale], **system.settings, "seed": seed}
    if budget is None:
        settings = {key: value for key, value in settings.items() if not key.startswith(_GATED_ONLY)}
    else:
        settings["budget.target"] = budget
    if system.gate_warmup:
        settings["training.gate_warmup"] = GATE_WARMUP_EPOCHS[request.scale]
    return resolve([uniform_layer(settings, f"reproduce {request.table}")]).config


_GATED_ONLY = ("budget.", "gating.noise")


PART_OF_DATASET = {"imagenet100": "folder"}
"""The data set part of those of the paper's names that are no part themselves."""


def data_part(dataset: str, root: Path | None) -> str:
    """The part that reads a data set: ``parquet`` where its folder holds such files, else by its name."""
    if root is not None and any(root.rglob("*.parquet")):
        return "parquet"
    return PART_OF_DATASET.get(dataset, dataset)


def _data(request: Request) -> dict[str, Any]:
    """The data set's settings; as parquet files where the folder holds such, with the set's own recipe all the same."""
    name = data_part(request.dataset, None)
    settings: dict[str, Any] = {"data.name": name}
    if request.data_root is None:
        return settings
    if data_part(request.dataset, request.data_root) == "parquet":
        options = registry().find("data", name).options_model()
        fields = {f"data.{field}": options.model_fields[field].default for field in ("image_size", "mean", "std")}
        settings = {**options.recipe, **fields, "data.name": "parquet"}
    return {**settings, "data.root": str(request.data_root)}
