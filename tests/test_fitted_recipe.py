"""The recipe is fitted to the pictures and the machine; what the user says always wins."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import ssl_dc
from helpers.command_line import done, parsed, refused
from helpers.settings import SHORT, as_options
from ssl_dc import api, fitted_recipe
from ssl_dc.config import RunConfig, dump, read_complete, uniform_layer
from ssl_dc.config.layers import flattened
from ssl_dc.data.folder import FolderImages
from ssl_dc.data.options import FolderOptions
from ssl_dc.errors import ConfigError
from ssl_dc.fitted_recipe import Fitted, Machine, Pictures, fit, fitted, images_per_second, survey

LAPTOP = Machine(cores=2)
SERVER = Machine(cores=32, gpus=4, processes=4, bf16=True)
SMALL = {"data.name": "folder", "backbone.width": 4, "objective.expander_width": 16}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder that the test runs in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def said(settings: dict[str, Any], pictures: Pictures, machine: Machine = LAPTOP) -> RunConfig:
    return fitted([uniform_layer({"data.name": "folder", **settings}, "test")], pictures, machine).config


def photographs(count: int, side: int = 160) -> Pictures:
    return Pictures(count, side, side * side / 1e6, alike=False)


def save_pictures(folder: Path, count: int, width: int = 40, height: int = 30) -> Path:
    folder.mkdir(parents=True)
    draw = np.random.default_rng(0)
    for number in range(count):
        pixels = draw.integers(0, 256, (height, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:03}.png")
    return folder


def one_space(text: str) -> str:
    return re.sub(" +", " ", text)


def minutes(config: RunConfig, pictures: Pictures, machine: Machine) -> float:
    return config.training.epochs * pictures.count / images_per_second(config, pictures, machine) / 60


def test_a_few_hundred_photographs_take_ten_minutes_on_a_laptop() -> None:
    pictures = photographs(600)
    config = said({}, pictures)
    assert config.data.image_size == 64
    assert config.backbone.model_dump()["width"] == 16
    assert config.optimizer.name == "adamw"
    assert pictures.count // config.training.batch_size >= 8
    assert 8 < minutes(config, pictures, LAPTOP) <= 10


def test_tens_of_thousands_take_an_hour_at_most() -> None:
    for count in (20_000, 50_000, 99_999):
        assert minutes(said({}, photographs(count)), photographs(count), LAPTOP) <= 60


def test_a_million_pictures_on_gpus_get_the_papers_recipe() -> None:
    config = said({}, photographs(1_281_167, 400), SERVER)
    fixed = flattened(FolderOptions.recipe)
    plain = flattened(config.model_dump(mode="json"))
    assert {key: plain[key] for key in fixed} == fixed
    assert (config.data.image_size, config.training.least_warmup) == (224, 200)


def test_more_width_or_size_gets_fewer_epochs() -> None:
    epochs = [said({"backbone.width": width}, photographs(600)).training.epochs for width in (16, 32, 64)]
    assert epochs[0] > epochs[1] > epochs[2]
    assert said({"data.image_size": 128}, photographs(600)).training.epochs < epochs[0]


def test_cifar_on_a_cpu_draws_its_views_in_batches() -> None:
    small = said({}, Pictures(5000, 32, 0.001, alike=True))
    assert (small.data.image_size, small.views.name) == (32, "batched")
    assert said({}, photographs(600)).views.name == "standard"


@pytest.mark.long
@given(st.integers(2, 3_000_000), st.integers(1, 6000), st.integers(1, 64), st.integers(0, 8), st.integers(1, 8))
def test_any_pictures_on_any_machine_get_a_config_that_can_be_trained(
    count: int, side: int, cores: int, gpus: int, processes: int
) -> None:
    machine = Machine(cores, gpus=gpus, processes=processes)
    config = said({"backbone.width": 4, "objective.expander_width": 16}, photographs(count, side), machine)
    batch = config.training.batch_size
    assert batch % processes == 0
    assert batch >= 2 * processes
    assert batch <= count or count < 2 * processes or batch - processes < count
    assert 1 <= config.training.epochs <= 500
    assert config.data.image_size <= max(32, side * 4 / 3)


def test_what_the_user_says_wins() -> None:
    settings = {"training.epochs": 3, "optimizer.lr": 0.01, "data.image_size": 48, "views.name": "batched"}
    config = said(settings, photographs(600))
    plain = flattened(config.model_dump(mode="json"))
    assert {key: plain[key] for key in settings} == settings
    assert said({"optimizer.name": "lars"}, photographs(600)).optimizer.lr == 0.3, "a rate for AdamW is none for LARS"
    assert said({"optimizer.name": "lars"}, photographs(600)).training.least_warmup == 200


def test_every_choice_is_shown_with_its_reason(here: Path) -> None:
    save_pictures(here / "photos", 25)
    shown = one_space(done("config", "show", *as_options(SMALL), "--data-root", "photos"))
    assert "epochs: 500 # fitted recipe: 20 pictures of about 30 px on" in shown
    for key in ("image_size", "stem", "batch_size", "lr", "warmup_share", "noise"):
        (line,) = (line for line in shown.splitlines() if line.strip().startswith(f"{key}: "))
        assert "# fitted recipe: " in line
    fixed = one_space(done("config", "show", *as_options(SMALL), "--data-root", "photos", "--recipe", "paper"))
    assert "fitted recipe" not in fixed
    assert "batch_size: 512 # recipe of folder" in fixed


def test_without_a_folder_the_fixed_recipe_is_shown(here: Path) -> None:
    assert parsed("config", "show", "--data", "folder")["training"]["batch_size"] == 512


def test_a_recipe_that_does_not_exist_is_refused(here: Path) -> None:
    assert "--recipe: recipe = 'papers': there is no such recipe; allowed: 'fitted' or 'paper'" in refused(
        "config", "show", "--recipe", "papers"
    )


def test_a_file_may_ask_for_a_recipe_and_an_option_for_another(here: Path) -> None:
    save_pictures(here / "photos", 25)
    (here / "run.yaml").write_text("recipe: paper\ndata:\n  name: folder\n  root: photos\n")
    assert parsed("config", "show", "--config", "run.yaml")["training"]["batch_size"] == 512
    assert parsed("config", "show", "--config", "run.yaml", "--recipe", "fitted")["training"]["batch_size"] == 16


def test_any_data_set_can_be_fitted(here: Path) -> None:
    assert parsed("config", "show", "--data", "digits")["training"]["batch_size"] == 128
    digits = parsed("config", "show", "--data", "digits", "--recipe", "fitted")
    assert (digits["data"]["image_size"], digits["views"]["name"]) == (32, "batched")


@pytest.mark.long
def test_a_run_saves_plain_values_and_does_not_choose_again(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_pictures(here / "photos", 50)
    kept = {key: value for key, value in SHORT.items() if key not in ("training.batch_size", "data.limit")}
    ssl_dc.train({**kept, "data.name": "folder", "data.root": "photos", "training.epochs": 1}, output="run")
    saved = json.loads((here / "run" / "config.json").read_text())
    assert "recipe" not in saved
    assert (saved["training"]["batch_size"], saved["optimizer"]["name"]) == (16, "adamw")
    monkeypatch.setattr(fitted_recipe, "survey", lambda _images: pytest.fail("chosen again"))
    ssl_dc.resume("run")


def test_a_complete_config_of_before_a_setting_keeps_what_it_meant(tmp_path: Path) -> None:
    config = json.loads(ssl_dc.RunConfig().model_dump_json())
    assert config["optimizer"]["name"] == "lars"
    del config["training"]["least_warmup"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert read_complete(tmp_path / "config.json").training.least_warmup == 0


def test_processes_that_chose_differently_are_told(here: Path) -> None:
    save_pictures(here / "photos", 50)
    settings = [uniform_layer({**SMALL, "data.root": "photos"}, "test")]
    ours, theirs = (fit(settings, machine=Machine(cores)).resolved.config for cores in (2, 8))
    api._check_same(ours, dump(ours))
    api._check_same(ours, dump(ours.model_copy(update={"data": ours.data.model_copy(update={"root": Path("/elsewhere")})})))
    with pytest.raises(ConfigError, match=r"have chosen different recipes, in training\.workers: set"):
        api._check_same(ours, dump(theirs))


def test_sizes_are_read_without_decoding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = sorted(map(str, save_pictures(tmp_path / "photos", 3, 60, 20).iterdir()))
    monkeypatch.setattr("ssl_dc.data.pictures._decoded", lambda _file: pytest.fail("decoded"))
    assert survey(FolderImages(paths, None)) == Pictures(3, 20, 60 * 20 / 1e6, alike=True)


def test_a_plan_for_pictures_that_are_not_here() -> None:
    found = fit([uniform_layer({"data.name": "folder"}, "test")], pictures=1_281_167, machine=SERVER)
    assert isinstance(found, Fitted)
    assert found.splits is None
    assert found.resolved.provenance["training.epochs"] == (
        "fitted recipe: 1,281,167 pictures on 4 GPUs: the paper's recipe"
    )


def test_what_depends_on_the_size_of_the_images_follows_the_users() -> None:
    large = Pictures(500, 3000, 12.0, alike=False)
    assert said({"data.image_size": 224}, large, Machine(4)).data.model_dump()["shrink"] == 3 * 224
    gpu = said({"data.image_size": 32}, large, SERVER)
    assert (gpu.data.model_dump()["shrink"], gpu.backbone.model_dump()["stem"]) == (96, "cifar")


def test_every_process_needs_memory_for_its_shrunk_pictures() -> None:
    many = Pictures(30_000, 3000, 12.0, alike=False)
    one, eight = (Machine(64, memory=512 * 2**30, gpus=8, processes=number) for number in (1, 8))
    assert said({}, many, one).data.model_dump()["shrink"] == 672
    assert said({}, many, eight).data.model_dump()["shrink"] is None


@pytest.mark.parametrize("accumulation", [3, 4])
def test_the_batch_can_be_accumulated_as_the_user_asks(accumulation: int) -> None:
    for count in (10, 600):
        batch = said({"training.accumulation": accumulation}, photographs(count)).training.batch_size
        assert batch % accumulation == 0
        assert batch >= 2 * accumulation
