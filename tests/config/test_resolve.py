"""A complete config is put together from defaults, recipes, files and options."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssl_dc.config import Resolved, RunConfig, dump, file_layer, override_layer, read, resolve, uniform_layer
from ssl_dc.config.layers import flattened
from ssl_dc.config.yaml_text import annotated_yaml
from ssl_dc.data.options import Cifar10Options, DigitsOptions
from ssl_dc.errors import ConfigError
from ssl_dc.optimizers.options import AdamWOptions, LARSOptions
from ssl_dc.routes import Route


def said(*assignments: str) -> RunConfig:
    return resolve([override_layer(assignments)]).config


def refused(*assignments: str) -> str:
    with pytest.raises(ConfigError) as caught:
        said(*assignments)
    return str(caught.value)


def in_file(tmp_path: Path, text: str, *overrides: str) -> Resolved:
    file = tmp_path / "run.yaml"
    file.write_text(text)
    return resolve([file_layer(file), override_layer(overrides)])


def test_nothing_said_is_the_paper_on_digits() -> None:
    config = resolve().config
    assert (config.objective.name, config.gating.name, config.encoder.name) == ("vicreg", "dgnet", "shared")
    assert (config.norm.name, config.data.name, config.budget.target) == ("separate", "digits", 0.3)
    assert config.routes == (Route.GATED, Route.DENSE)
    for key, value in DigitsOptions.recipe.items():
        section, _, option = key.partition(".")
        assert getattr(getattr(config, section), option) == value, key


def test_a_published_data_set_brings_the_papers_settings() -> None:
    config = said("data=cifar10")
    assert config.optimizer == LARSOptions()
    assert (config.training.epochs, config.training.batch_size, config.training.warmup_share) == (500, 512, 0.02)
    assert config.data.image_size == 32
    assert config.backbone.model_dump() == {"name": "resnet18", "width": 64, "stem": "cifar", "stem_padding": None}
    assert config.views.model_dump()["blur_p"] == (0.0, 0.2)
    assert config.objective.model_dump()["invariance"] == 25
    assert config.objective.model_dump()["covariance"] == 1


def test_precedence_is_default_recipe_file_named_option_override(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("training:\n  epochs: 2\n  batch_size: 32\n  workers: 1\n")
    layers = [
        file_layer(file),
        uniform_layer({"training.epochs": 3, "training.batch_size": 48}, "--named"),
        override_layer(["training.epochs=4"]),
    ]
    expected = [(500, 512), (60, 128), (2, 32), (3, 48), (4, 48)]
    assert (
        RunConfig.model_fields["training"].default.epochs,
        RunConfig.model_fields["training"].default.batch_size,
    ) == expected[0]
    for count, (epochs, batch_size) in enumerate(expected[1:]):
        training = resolve(layers[:count]).config.training
        assert (training.epochs, training.batch_size) == (epochs, batch_size)
    assert resolve(layers).config.training.workers == 1


def test_provenance_names_the_source_of_every_setting(tmp_path: Path) -> None:
    resolved = in_file(tmp_path, "seed: 5\nbudget:\n  target: 0.2\n", "training.epochs=2")
    file = tmp_path / "run.yaml"
    assert resolved.provenance["seed"] == f"{file}:1"
    assert resolved.provenance["budget.target"] == f"{file}:3"
    assert resolved.provenance["training.epochs"] == "--set training.epochs"
    assert resolved.provenance["training.batch_size"] == "recipe of digits"
    assert resolved.provenance["budget.control"] == "default"
    assert resolved.provenance["routes"] == "default"
    flat = {f"{a}.{b}" for a, section in resolved.config.model_dump().items() if isinstance(section, dict) for b in section}
    assert flat | {"seed", "routes"} == set(resolved.provenance)


def test_naming_another_part_in_a_stronger_layer_starts_its_section_afresh(tmp_path: Path) -> None:
    config = in_file(tmp_path, "objective:\n  name: barlow_twins\n  off_diagonal: 0.5\n", "objective=vicreg").config
    assert config.objective.name == "vicreg"
    assert "off_diagonal" not in config.objective.model_dump()
    kept = in_file(tmp_path, "objective:\n  name: barlow_twins\n  off_diagonal: 0.5\n", "objective.scale=0.1").config
    assert kept.objective.model_dump() | {"expander_width": 0} == {
        "name": "barlow_twins",
        "expander_width": 0,
        "off_diagonal": 0.5,
        "scale": 0.1,
    }


@pytest.mark.parametrize(
    ("data", "optimizer", "lr", "scaling"),
    [("digits", "lars", 0.3, "linear"), ("cifar10", "adamw", 2e-3, "none"), ("digits", "adamw", 2e-3, "none")],
)
def test_another_optimiser_does_not_take_over_the_learning_rate_of_the_recipes(
    data: str, optimizer: str, lr: float, scaling: str
) -> None:
    config = said(f"data={data}", f"optimizer={optimizer}")
    assert (config.optimizer.name, config.optimizer.lr, config.optimizer.lr_scaling) == (optimizer, lr, scaling)


def test_the_recipes_optimiser_keeps_what_the_user_says_of_it() -> None:
    assert said("optimizer.weight_decay=0.5").optimizer == AdamWOptions(lr=2e-3, weight_decay=0.5)


def test_recipe_settings_that_do_not_fit_the_chosen_part_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DigitsOptions, "recipe", {**DigitsOptions.recipe, "objective.invariance": 3.0, "gating.bound": 0.5})
    assert said().objective.model_dump()["invariance"] == 3
    assert "invariance" not in said("objective=barlow_twins").objective.model_dump()
    assert "bound" not in said("gating=none").gating.model_dump()
    assert "bound" not in said("gating=convnet_aig").gating.model_dump()


@pytest.mark.parametrize(
    ("assignment", "section", "expected"),
    [
        ("objective=barlow_twins", "objective", {"expander_width": 256}),
        ("backbone=resnet34", "backbone", {"width": 16, "stem": "cifar"}),
    ],
)
def test_recipe_settings_that_fit_another_part_apply_to_it(assignment: str, section: str, expected: dict[str, Any]) -> None:
    options = getattr(said(assignment), section).model_dump()
    assert {key: options[key] for key in expected} == expected


def test_cifar_keeps_its_stem_with_another_resnet() -> None:
    assert said("data=cifar10", "backbone=resnet34").backbone.model_dump()["stem"] == "cifar"


def test_what_the_user_says_ranks_above_a_recipe_that_names_a_part() -> None:
    config = said("data=cifar10", "backbone.stem=imagenet")
    assert config.backbone.model_dump()["stem"] == "imagenet"
    assert config.data == Cifar10Options()


def test_no_gating_means_dense_routes_and_no_budget() -> None:
    config = said("gating=none")
    assert config.routes == (Route.DENSE, Route.DENSE)
    assert config.budget.target is None
    assert said("gating=none", 'routes=["dense","dense"]', "budget.target=null") == config


@pytest.mark.parametrize(
    ("assignments", "named"),
    [
        (["gating=none", "budget.target=0.2"], "budget.target"),
        (["gating=none", 'routes=["gated","dense"]'], "routes"),
        (["gating=dgnet", "budget.target=null"], "budget.target"),
        (["gating=convnet_aig", "budget.target=null"], "budget.target"),
    ],
)
def test_contradictions_of_gating_budget_and_routes_are_refused(assignments: list[str], named: str) -> None:
    message = refused(*assignments)
    assert named in message
    assert "gating" in message


def test_a_file_without_gating_gives_way_to_an_option_with_gating(tmp_path: Path) -> None:
    config = in_file(tmp_path, "gating: none\n", "gating=dgnet").config
    assert config.routes == (Route.GATED, Route.DENSE)
    assert config.budget.target == 0.3


@pytest.mark.parametrize(
    "assignments",
    [
        [],
        ["gating=none"],
        ["gating=convnet_aig", "budget.target=0.5", "budget.control=penalty"],
        ["data=folder", "data.root=/a: b #c"],
        ["data=parquet", "data.root=no", "data.limit=10"],
        ["objective=barlow_twins", "encoder=double", "norm=shared", "backbone=resnet50", "optimizer=adamw"],
        ["seed=4294967295", "optimizer.lr=1e-07", "training.checkpoint_every=3", "training.precision=no"],
        ['routes=["gated","gated"]', "views.crop_scale=[0.1, 0.30000000000000004]"],
    ],
)
def test_saved_and_shown_configs_are_read_back_equal(assignments: list[str], tmp_path: Path) -> None:
    resolved = resolve([override_layer(assignments)])
    saved, shown = tmp_path / "config.json", tmp_path / "config.yaml"
    saved.write_text(dump(resolved.config))
    shown.write_text(annotated_yaml(resolved))
    assert read(saved) == resolved.config
    assert read(shown) == resolved.config
    assert dump(read(saved)) == dump(resolved.config)


def test_shown_yaml_says_where_each_setting_comes_from() -> None:
    lines = annotated_yaml(resolve([override_layer(["budget.target=0.1"])])).splitlines()
    assert any(line.split() == ["target:", "0.1", "#", "--set", "budget.target"] for line in lines)
    assert any(line.split() == ["epochs:", "60", "#", "recipe", "of", "digits"] for line in lines)
    assert all("#" in line or line.endswith(":") for line in lines)


def test_a_data_folder_named_by_a_date_can_be_given_in_a_file(tmp_path: Path) -> None:
    config = in_file(tmp_path, "data:\n  name: folder\n  root: 2026-07-28\n").config
    assert config.data.root == Path("2026-07-28").absolute()


def test_a_saved_config_does_not_change_with_the_recipes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "config.json"
    config = said("gating=none")
    file.write_text(dump(config))
    monkeypatch.setattr(DigitsOptions, "recipe", {"training.epochs": 7, "optimizer.name": "lars", "views.flip_p": 0.1})
    assert read(file) == config


def test_a_config_cannot_be_changed() -> None:
    config = resolve().config
    with pytest.raises(ValueError, match="frozen"):
        config.seed = 1


@settings(deadline=None, max_examples=50)
@given(target=st.floats(0, 1, exclude_min=True), seed=st.integers(0, 2**32 - 1), lr=st.floats(1e-12, 1e12))
def test_numbers_survive_being_saved_to_the_last_bit(target: float, seed: int, lr: float) -> None:
    config = resolve([uniform_layer({"budget.target": target, "seed": seed, "optimizer.lr": lr}, "test")]).config
    assert resolve([uniform_layer(flattened(json.loads(dump(config))), "test")]).config == config


@pytest.mark.long
@pytest.mark.parametrize(
    "assignments", [[], ["data=cifar10", "gating=none"], ["objective=barlow_twins", "backbone=resnet50", "data=parquet"]]
)
def test_resolving_imports_no_torch(assignments: list[str]) -> None:
    code = f"""
import sys
from ssl_dc.config import override_layer, resolve
from ssl_dc.config.yaml_text import annotated_yaml
annotated_yaml(resolve([override_layer({assignments!r})]))
heavy = [name for name in ("torch", "accelerate", "sklearn", "torchvision", "numpy") if name in sys.modules]
assert not heavy, heavy
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


def test_a_budget_over_a_grid_is_the_only_one() -> None:
    grid = uniform_layer({"budget.target": 0.3, "budget.grid": [0.1, 0.3, 0.5]}, "a file")
    assert resolve([grid]).config.budget.budgets == (0.1, 0.3, 0.5)
    for budget in (0.3, 0.25):
        assert resolve([grid, uniform_layer({"budget.target": budget}, "--budget")]).config.budget.budgets == (budget,)
    several = resolve([grid, uniform_layer({"budget.target": "0.2,0.5"}, "--budget")]).config.budget
    assert (several.budgets, several.target) == ((0.2, 0.5), 0.2)
