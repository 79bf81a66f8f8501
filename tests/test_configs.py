"""The ready configs: each is valid, trains, and is what ``ssl-dc reproduce`` runs at the paper's scale."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from helpers.settings import config_of
from helpers.training import Told
from ssl_dc.assemble import build_data_set
from ssl_dc.config import RunConfig, read
from ssl_dc.config.layers import flattened
from ssl_dc.data.subsets import open_splits
from ssl_dc.reproduction.plan import Scope, planned_runs
from ssl_dc.reproduction.systems import TABLES
from ssl_dc.training.from_config import trainer_from_config

CONFIGS = Path(__file__).parent.parent / "configs"
NAMES = sorted(path.name for path in CONFIGS.glob("*.yaml"))
BUDGET = 0.3
DATASET = {"table1": "cifar10", "table3": "cifar100", "table4": "cifar100", "table5": "cifar100", "table6": "cifar100"}

ROWS = {
    f"{table}-{label.replace('/', '-')}.yaml": (table, system.name, dataset)
    for table, dataset in DATASET.items()
    for label, system in TABLES[table].systems
} | {f"table1-vicreg-dual-{dataset}.yaml": ("table1", "dual", dataset) for dataset in ("stl10", "imagenet100")}
"""The file of each row of the paper's tables: table, system, data set."""


def tiny(config: RunConfig) -> RunConfig:
    """A config with everything as it is but its size and its data."""
    kept = {key: value for key, value in flattened(config.model_dump(mode="json")).items() if not key.startswith("data.")}
    small = {
        "data.name": "digits",
        "data.limit": 32,
        "data.test_limit": 10,
        "data.image_size": 32 if kept["backbone.stem"] == "imagenet" else 10,
        # the imagenet stem is never gated: in a narrower network it alone costs more than the budget
        "backbone.width": 16 if kept["backbone.stem"] == "imagenet" else 4,
        "objective.expander_width": 8,
        "training.epochs": 2 if kept["training.gate_warmup"] else 1,
        "training.gate_warmup": min(1, kept["training.gate_warmup"]),
        "training.batch_size": 16,
        "training.workers": 0,
        "training.log_every": 1,
    }
    return config_of({**kept, **small})


def test_there_are_configs_for_people_to_start_from() -> None:
    assert {"demo.yaml", "cifar10-small.yaml"} <= set(NAMES)


def test_every_row_of_the_tables_has_a_config_and_every_config_a_row() -> None:
    assert {name for name in NAMES if name.startswith("table")} == set(ROWS)


@pytest.mark.parametrize("name", NAMES)
def test_config_is_valid_and_says_what_it_is(name: str) -> None:
    text = (CONFIGS / name).read_text(encoding="utf-8")
    modeline, title, *_ = text.splitlines()
    assert modeline == "# yaml-language-server: $schema=schema.json"
    assert title.startswith("# ")
    config = read(CONFIGS / name)
    assert config.data.root is None, "whoever runs it names the folder"
    if name in ROWS and config.budget.target is not None:
        assert "--budget" in text


@pytest.mark.parametrize("name", NAMES)
def test_config_trains(name: str) -> None:
    original = read(CONFIGS / name)
    config = tiny(original)
    for kind in ("objective", "gating", "encoder", "backbone", "norm", "views", "optimizer"):
        assert getattr(config, kind).name == getattr(original, kind).name, kind
    assert (config.routes, config.budget) == (original.routes, original.budget)
    told = Told()
    trainer = trainer_from_config(config, open_splits(build_data_set(config)).train)
    encoder = trainer.learner.encoder
    before = [parameter.detach().clone() for parameter in encoder.parameters()]
    trainer.fit(watchers=[told])
    losses = told.values("loss")
    assert len(losses) == 2 * config.training.epochs
    assert all(loss > 0 for loss in losses)
    assert any(not torch.equal(a, b) for a, b in zip(before, encoder.parameters(), strict=True))


@pytest.mark.parametrize("name", sorted(ROWS))
def test_config_is_what_reproduce_plans_at_the_papers_scale(name: str) -> None:
    table, system, dataset = ROWS[name]
    compared = (each for _, each in TABLES[table].systems if each.name == system)
    (planned,) = planned_runs(compared, Scope("paper", dataset, None, [BUDGET], [0]))
    config = read(CONFIGS / name)
    assert flattened(config.model_dump(mode="json")) == flattened(planned.config.model_dump(mode="json"))
    assert config == planned.config


@pytest.mark.parametrize("name", sorted(ROWS))
def test_row_is_at_the_papers_scale(name: str) -> None:
    config = read(CONFIGS / name)
    size = {"cifar10": 32, "cifar100": 32, "stl10": 96, "imagenet100": 224}[ROWS[name][2]]
    cifar = ROWS[name][2].startswith("cifar")
    assert config.data.image_size == size
    backbone = config.backbone.model_dump()
    assert (backbone["name"], backbone["width"], backbone["stem"]) == ("resnet18", 64, "cifar" if cifar else "imagenet")
    assert (config.training.epochs, config.training.batch_size, config.optimizer.name) == (500, 512, "lars")
    assert (config.optimizer.lr, config.optimizer.lr_scaling) == (0.3, "linear")
    assert config.data.limit is None
    assert config.views.model_dump()["blur_p"] == ((0.0, 0.2) if cifar else (0.0, 0.0))
    if config.budget.target is not None:
        assert config.budget.control == "penalty"
