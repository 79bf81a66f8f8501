"""What a watcher must do, of whichever kind: trackers are watchers with options."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ssl_dc.testing.check import ConformanceError, expect
from ssl_dc.trackers.base import StepMetrics, Watcher

STEPS_PER_EPOCH = 2
TOTAL_STEPS = 4
RUN_FILES = ("config.json", "metrics.jsonl", "model.safetensors")
"""Files of the run itself, which lie in the folder that a watcher is given."""

Make = Callable[[Path], Watcher]
"""Builds the watcher for a run's folder."""


def expect_to_bear_a_training(make: Make) -> None:
    """Every event of a training may be told, in the order in which training tells them."""
    with tempfile.TemporaryDirectory() as folder:
        _train(make(Path(folder)), 0, TOTAL_STEPS)


def expect_to_bear_a_resumed_training(make: Make) -> None:
    """A training may be broken off and resumed, with a new watcher for the same folder."""
    with tempfile.TemporaryDirectory() as folder:
        _train(make(Path(folder)), 0, STEPS_PER_EPOCH)
        _train(make(Path(folder)), STEPS_PER_EPOCH, TOTAL_STEPS)
    with tempfile.TemporaryDirectory() as folder:
        _train(make(Path(folder)), TOTAL_STEPS, TOTAL_STEPS)


def expect_to_leave_the_run_alone(make: Make) -> None:
    """The run's own files, and the metrics that are handed over, are as they were."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for file in RUN_FILES:
            (folder / file).write_text("of the run", encoding="utf-8")
        handed_over = _train(make(folder), 0, TOTAL_STEPS)
        for file in RUN_FILES:
            text = (folder / file).read_text(encoding="utf-8") if (folder / file).exists() else None
            expect(
                text == "of the run", f"expected the run's {file} to be left alone, saw it {'changed' if text else 'gone'}"
            )
        for metrics in handed_over:
            expected = _values(metrics.step)
            expect(metrics.values == expected, f"expected the metrics {expected} to be left alone, saw {metrics.values}")


def _train(watcher: Watcher, first: int, last: int) -> list[StepMetrics]:
    """Tell a watcher of a training from one step to another; the metrics that it was handed."""
    handed_over = []
    _tell(watcher, "on_start", first, TOTAL_STEPS)
    _tell(watcher, "on_message", "a message")
    for step in range(first + 1, last + 1):
        epoch = (step - 1) // STEPS_PER_EPOCH + 1
        metrics = StepMetrics(step, TOTAL_STEPS, epoch, _values(step), images_per_second=100.0)
        handed_over.append(metrics)
        _tell(watcher, "on_step", metrics)
        _tell(watcher, "on_step_end", step)
        if step % STEPS_PER_EPOCH == 0:
            _tell(watcher, "on_epoch_end", epoch)
            _tell(watcher, "on_checkpoint", step)
    _tell(watcher, "on_end")
    return handed_over


def _tell(watcher: Watcher, event: str, *about: Any) -> None:
    try:
        getattr(watcher, event)(*about)
    except Exception as error:
        raise ConformanceError(f"expected {event} to be borne, saw {type(error).__name__}: {error}") from error


def _values(step: int) -> dict[str, float]:
    return {"loss": 1.0 / step, "terms/contrastive": 0.5 / step, "cost_ratio": 0.3}
