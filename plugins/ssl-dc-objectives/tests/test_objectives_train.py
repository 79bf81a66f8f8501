"""Each objective in a training of two steps, a gated and a dense view, through the public functions; and resumed."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file
from stated import SMALL, TINY

import ssl_dc
from ssl_dc.cli import main


def settings_of(name: str, **more: Any) -> dict[str, Any]:
    options = {f"objective.{key}": value for key, value in SMALL[name].items()}
    return {**TINY, "routes": ["gated", "dense"], "training.checkpoint_every": 1, "objective": name, **options, **more}


def saved(folder: Path, step: int, file: str) -> dict[str, torch.Tensor]:
    return load_file(folder / "checkpoints" / f"step-{step:08d}" / f"{file}.safetensors")


@pytest.mark.parametrize("name", SMALL)
def test_two_steps_train_both_routes_and_a_resumed_run_is_the_same_to_the_last_bit(name: str, tmp_path: Path) -> None:
    assert_a_resumed_run_is_the_same(settings_of(name), tmp_path)


def assert_a_resumed_run_is_the_same(settings: dict[str, Any], folder: Path) -> None:
    """Two steps train both routes and the heads; a run that is resumed after the first has the same second one."""
    whole, resumed = folder / "whole", folder / "resumed"
    run = ssl_dc.train(settings, output=whole)
    assert run.outcome.routes[ssl_dc.Route.GATED].ratio < 0.9
    first, last = (saved(whole, step, "learner") for step in (1, 2))
    moved = {key for key in first if key.endswith(".weight") and not torch.equal(first[key], last[key])}
    assert any(key.startswith("encoder.") for key in moved)
    assert any(key.startswith("objective.") for key in moved)
    assert all(tensor.isfinite().all() for tensor in last.values())
    shutil.copytree(whole, resumed)
    shutil.rmtree(resumed / "checkpoints" / "step-00000002")
    ssl_dc.resume(resumed)
    for file in ("learner", "optimizer"):
        expected, found = saved(whole, 2, file), saved(resumed, 2, file)
        assert expected.keys() == found.keys()
        assert all(torch.equal(expected[key], found[key]) for key in expected)


def test_three_views_train(tmp_path: Path) -> None:
    run = ssl_dc.train(settings_of("dino", routes=["gated", "dense", "gated"]), output=tmp_path / "run")
    assert all(torch.isfinite(p).all() for p in run.model.encoder.parameters())
    assert run.outcome.routes[ssl_dc.Route.GATED].ratio < 0.9


MULTI_CROP: dict[str, Any] = {
    "data.image_size": 16,
    "views.crop_scale": [0.4, 1],
    "views.local_size": 8,
    "routes": ["gated", "dense", "gated", "dense"],
}
"""Two global and two local views."""


@pytest.mark.parametrize("name", ["dino", "sigreg", "visreg", "wmse"])
def test_small_crops_train_and_a_resumed_run_is_the_same_to_the_last_bit(name: str, tmp_path: Path) -> None:
    assert_a_resumed_run_is_the_same(settings_of(name, **MULTI_CROP), tmp_path)


def test_the_command_line_trains_with_small_crops(tmp_path: Path) -> None:
    settings = settings_of("dino", **MULTI_CROP, **{"views.name": "batched", "training.precision": "bf16"})
    settings["routes"] = ",".join(settings["routes"])
    words = [f"--{key}={value}" for key, value in settings.items()]
    words += ["--views.local_scale", "0.05,0.4", "--output", str(tmp_path / "run")]
    said = CliRunner().invoke(main, ["train", *words])
    assert said.exit_code == 0, said.stderr
    assert "2 global of 16 px: gated, dense; 2 local of 8 px: gated, dense" in " ".join(said.stderr.split())
    assert (tmp_path / "run" / "result.json").is_file()


def test_simsiam_refuses_three_views_before_it_trains(tmp_path: Path) -> None:
    with pytest.raises(ssl_dc.ConfigError, match="takes 2 views, not 3"):
        ssl_dc.train(settings_of("simsiam", routes=["gated", "dense", "gated"]), output=tmp_path / "run")


def test_dino_refuses_a_lone_global_view_before_it_takes_a_step(tmp_path: Path) -> None:
    """The teacher would have no other view to teach it by."""
    lone = {**MULTI_CROP, "routes": ["gated", "dense"], "views.global_count": 1}
    with pytest.raises(ssl_dc.ConfigError, match="objective dino takes two global views or more, and gets 1"):
        ssl_dc.train(settings_of("dino", **lone), output=tmp_path / "run")
    assert not list((tmp_path / "run" / "checkpoints").glob("step-*"))


def test_all_are_found_and_their_options_are_checked() -> None:
    for name, options in SMALL.items():
        config = ssl_dc.RunConfig.model_validate({"objective": {"name": name, **options}})
        assert config.objective.name == name
        with pytest.raises(ValueError, match="width"):
            ssl_dc.RunConfig.model_validate({"objective": {"name": name, "width": 0}})
