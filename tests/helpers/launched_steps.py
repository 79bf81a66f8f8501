"""What processes of a launch do in the tests of launches: one step, or a part of a run."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn

import ssl_dc
from helpers.training import Told, trainer_of
from ssl_dc.encoders.base import Encoder
from ssl_dc.objectives.base import Objective
from ssl_dc.training.learner import Learner
from ssl_dc.training.trainer import Trainer


class StopAfter(ssl_dc.Watcher):
    """Sends SIGTERM to its own process after a step, as a scheduler would."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, step: int) -> None:
        if step == self.step:
            os.kill(os.getpid(), signal.SIGTERM)


def in_float64(settings: Mapping[str, Any]) -> Trainer:
    """The trainer of a config with a network in float64, in which rounding is too small to see."""

    def learner(encoder: Encoder, objective: Objective, **named: Any) -> Learner:
        for module in encoder.modules():
            if isinstance(module, nn.Conv2d):
                module.register_forward_pre_hook(lambda _, words: (words[0].double(), *words[1:]))
        return Learner(encoder, objective, **named).double()

    with patch("ssl_dc.training.trainer.Learner", learner):
        return trainer_of(settings)


def first_step(settings: Mapping[str, Any], float64: bool = False) -> tuple[dict[str, float], dict[str, Tensor]]:
    """The metrics of the first step of a training, in the main process, and the gradients that it is taken with."""
    trainer, told = in_float64(settings) if float64 else trainer_of(settings), Told()
    step, gradients = trainer.optimizer.step, dict[str, Tensor]()

    def noted(*arguments: Any) -> Any:
        if not gradients:
            gradients.update({n: p.grad.clone() for n, p in trainer.learner.named_parameters() if p.grad is not None})
        return step(*arguments)

    trainer.optimizer.step = noted  # type: ignore[method-assign]
    trainer.fit(watchers=[told])
    return (told.metrics[0].values if told.metrics else {}), gradients


def part_of_run(folder: Path, settings: Mapping[str, Any], until: int | None) -> None:
    """Begin a run, or go on with it, until a step or its end."""
    watchers = [] if until is None else [StopAfter(until)]
    try:
        if (folder / "config.json").exists():
            ssl_dc.resume(folder, watchers=watchers)
        else:
            ssl_dc.train(settings, output=folder, watchers=watchers)
    except ssl_dc.Stopped:
        assert until is not None


def main() -> None:
    """In each process: the first step of each system, also in float64, then a part of a run."""
    folder, systems, settings, until = Path(sys.argv[1]), *map(json.loads, sys.argv[2:])
    torch.set_num_threads(1)
    for name, system in systems.items():
        for float64 in (False, True):
            torch.save(first_step(system, float64), folder / f"{name}-{float64}-{os.environ['RANK']}.pt")
    part_of_run(folder / "run", settings, until)
    torch.distributed.barrier()
