"""No width, image size, stem or padding that a config allows ends the process that trains it.

Torch has crashed at some of them. So each training of two steps runs in a process of its own, and its exit status counts.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

from ssl_dc.assemble import build_network, build_objective, build_optimizer
from ssl_dc.backbones.options import STEMS
from ssl_dc.config import resolve, uniform_layer
from ssl_dc.training.trainer import Trainer


class Shape(NamedTuple):
    """What a training is tried with."""

    width: int
    size: int
    stem: str
    padding: int | None
    backbone: str = "resnet18"


def train_two_steps(shape: Shape) -> None:
    settings: dict[str, Any] = {
        "backbone": shape.backbone,
        "backbone.width": shape.width,
        "backbone.stem": shape.stem,
        "backbone.stem_padding": shape.padding,
        "data.image_size": shape.size,
        "objective.expander_width": 8,
        "budget.target": 1,
        "training.epochs": 1,
        "training.batch_size": 2,
        "training.log_every": 1,
    }
    config = resolve([uniform_layer(settings, "the sweep")]).config
    network = build_network(config)
    images = torch.randn(2, 2, 2, 3, shape.size, shape.size)
    Trainer(
        encoder=network.encoder,
        objective=build_objective(config, network.encoder.feature_dim),
        gating=network.gating,
        optimizer=partial(build_optimizer, config),
        image_size=shape.size,
        training=config.training,
        loader=[list(views) for views in images],
        budget=config.budget,
    ).fit()


def crashes(shapes: Sequence[Shape], place: Path) -> list[str]:
    """What ended the processes that trained with these shapes: a line for each that did not come to its end."""
    found: list[str] = []
    reached = place / "reached"
    number = 0
    while number < len(shapes):
        child = os.fork()
        if child == 0:
            status = 1
            try:
                for at in range(number, len(shapes)):
                    reached.write_text(json.dumps(at))
                    train_two_steps(shapes[at])
                status = 0
            finally:
                os._exit(status)
        _, status = os.waitpid(child, 0)
        if status == 0:
            return found
        number = json.loads(reached.read_text())
        found.append(f"{shapes[number]}: status {os.waitstatus_to_exitcode(status)}")
        number += 1
    return found


def every_shape(widths: Sequence[int], sizes: Sequence[int], seed: int) -> list[Shape]:
    """Each width, size and stem, with the stem's own padding or, every other time, one that is drawn from those allowed."""
    draw = random.Random(seed)
    return [
        Shape(width, size, name, draw.randrange(stem.kernel) if draw.random() < 0.5 else None)
        for width in widths
        for size in sizes
        for name, stem in STEMS.items()
    ]


@pytest.mark.long
def test_narrow_networks_train_at_the_sizes_that_crashed(tmp_path: Path) -> None:
    shapes = [
        Shape(8, 64, "cifar", 2),
        Shape(8, 96, "strided", None),
        Shape(8, 192, "imagenet", 6),
        Shape(12, 97, "cifar", None),
        Shape(20, 64, "cifar", 0),
        Shape(4, 96, "imagenet", None),
        Shape(4, 64, "cifar", None, "resnet50"),
    ]
    assert crashes(shapes, tmp_path) == []


def test_a_crash_would_be_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def crashing(shape: Shape) -> None:
        if shape.width == 8:
            os.abort()

    monkeypatch.setattr(f"{__name__}.train_two_steps", crashing)
    found = crashes([Shape(width, 8, "cifar", None) for width in (4, 8, 12)], tmp_path)
    assert found == [f"{Shape(8, 8, 'cifar', None)}: status -6"]


@pytest.mark.slow
@pytest.mark.timeout(10_800)
def test_every_width_trains_at_every_size(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """All of them, or a share drawn at random: SSL_DC_SWEEP_SHARE, SSL_DC_SWEEP_SEED."""
    seed = int(os.environ.get("SSL_DC_SWEEP_SEED", "0"))
    shapes = every_shape(range(4, 65, 4), range(16, 131), seed)
    shapes = random.Random(seed).sample(shapes, round(float(os.environ.get("SSL_DC_SWEEP_SHARE", "1")) * len(shapes)))
    found = crashes(shapes, tmp_path)
    with capsys.disabled():
        print(f"\n{len(shapes)} shapes trained for two steps, {len(found)} did not come to their end")
    assert found == []
