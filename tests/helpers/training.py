"""Trainings, what they tell, and what they leave behind."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

from helpers.settings import config_of
from ssl_dc.assemble import build_data_set
from ssl_dc.data.subsets import open_splits
from ssl_dc.trackers.base import StepMetrics, Watcher
from ssl_dc.training.from_config import trainer_from_config
from ssl_dc.training.trainer import Trainer


def trainer_of(settings: Mapping[str, Any]) -> Trainer:
    """The trainer of a config, on the training images of its data set."""
    config = config_of(settings)
    return trainer_from_config(config, open_splits(build_data_set(config)).train)


class Told(Watcher):
    """Remembers what it is told.

    Attributes:
        events: Every event with the number that came with it, in order.
        metrics: What every logged step measured.
        messages: Every message.
    """

    def __init__(self) -> None:
        self.events: list[tuple[str, int | None]] = []
        self.metrics: list[StepMetrics] = []
        self.messages: list[str] = []

    def on_start(self, step: int, total_steps: int) -> None:  # noqa: ARG002  # the event's signature
        self.events.append(("start", step))

    def on_step(self, metrics: StepMetrics) -> None:
        self.events.append(("metrics", metrics.step))
        self.metrics.append(metrics)

    def on_step_end(self, step: int) -> None:
        self.events.append(("step", step))

    def on_epoch_end(self, epoch: int) -> None:
        self.events.append(("epoch", epoch))

    def on_checkpoint(self, step: int) -> None:
        self.events.append(("checkpoint", step))

    def on_message(self, text: str) -> None:
        self.events.append(("message", None))
        self.messages.append(text)

    def on_end(self) -> None:
        self.events.append(("end", None))

    def values(self, name: str) -> list[float]:
        """A metric of every logged step that has it."""
        return [metrics.values[name] for metrics in self.metrics if name in metrics.values]


def logged(folder: Path) -> list[dict[str, Any]]:
    """The lines of a run's ``metrics.jsonl``."""
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def saved_steps(folder: Path) -> list[int]:
    """The steps of a run's resume points."""
    return sorted(int(path.name.removeprefix("step-")) for path in (folder / "checkpoints").glob("step-*"))


def learner_at(folder: Path, step: int) -> dict[str, Tensor]:
    """The network and heads that a resume point holds, by name."""
    return load_file(folder / "checkpoints" / f"step-{step:08d}" / "learner.safetensors")


def assert_same_files(one: Path, two: Path, *names: str) -> None:
    """Two runs have the same bytes in the files named; by default in all that say what was computed."""
    for name in names or ("metrics.jsonl", "model.safetensors", "result.json"):
        assert (one / name).read_bytes() == (two / name).read_bytes(), name
