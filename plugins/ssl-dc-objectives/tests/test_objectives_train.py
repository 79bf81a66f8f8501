"""Each objective in a training of two steps, a gated and a dense view, through the public functions; and resumed."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from stated import SMALL, TINY

import ssl_dc


def settings_of(name: str, **more: Any) -> dict[str, Any]:
    options = {f"objective.{key}": value for key, value in SMALL[name].items()}
    return {**TINY, "routes": ["gated", "dense"], "training.checkpoint_every": 1, "objective": name, **options, **more}


def saved(folder: Path, step: int, file: str) -> dict[str, torch.Tensor]:
    return load_file(folder / "checkpoints" / f"step-{step:08d}" / f"{file}.safetensors")


@pytest.mark.parametrize("name", SMALL)
def test_two_steps_train_both_routes_and_a_resumed_run_is_the_same_to_the_last_bit(name: str, tmp_path: Path) -> None:
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    run = ssl_dc.train(settings_of(name), output=whole)
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


def test_simsiam_refuses_three_views_before_it_trains(tmp_path: Path) -> None:
    with pytest.raises(ssl_dc.ConfigError, match="takes 2 views, not 3"):
        ssl_dc.train(settings_of("simsiam", routes=["gated", "dense", "gated"]), output=tmp_path / "run")


def test_all_are_found_and_their_options_are_checked() -> None:
    for name, options in SMALL.items():
        config = ssl_dc.RunConfig.model_validate({"objective": {"name": name, **options}})
        assert config.objective.name == name
        with pytest.raises(ValueError, match="width"):
            ssl_dc.RunConfig.model_validate({"objective": {"name": name, "width": 0}})
