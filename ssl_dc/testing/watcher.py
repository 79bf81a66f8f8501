"""What a watcher of training events must do: checks that tell it of a training that does not happen."""

from __future__ import annotations

import base64
import tempfile
from pathlib import Path
from typing import Any

from ssl_dc.testing.check import ConformanceError, Subject, expect, expect_instance
from ssl_dc.trackers.base import StepMetrics, Watcher

STEPS_PER_EPOCH = 2
TOTAL_STEPS = 4
BATCH_SIZE = 8
PICTURE = base64.b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGP4//8/AAX+Av4N70a4AAAAAElFTkSuQmCC")
"""A PNG file of one pixel."""
RUN_FILES = ("config.json", "metrics.jsonl", "model.safetensors")
"""Files of the run itself, in the folder that a watcher is built for."""


def is_a_watcher(subject: Subject) -> None:
    """What the target builds is an `ssl_dc.Watcher`."""
    with tempfile.TemporaryDirectory() as folder:
        expect_instance(subject.build(Path(folder)), Watcher)


def it_bears_every_event(subject: Subject) -> None:
    """It takes every event of a training, in the order in which training tells of them."""
    with tempfile.TemporaryDirectory() as folder:
        _train(subject.build(Path(folder)), 0, TOTAL_STEPS)


def it_bears_a_resumed_training(subject: Subject) -> None:
    """After a training was broken off, a new one for the same folder takes the events of the resumed training."""
    with tempfile.TemporaryDirectory() as folder:
        _train(subject.build(Path(folder)), 0, STEPS_PER_EPOCH)
        _train(subject.build(Path(folder)), STEPS_PER_EPOCH, TOTAL_STEPS)
    with tempfile.TemporaryDirectory() as folder:
        _train(subject.build(Path(folder)), TOTAL_STEPS, TOTAL_STEPS)


def the_run_is_left_alone(subject: Subject) -> None:
    """It changes neither the run's own files in the folder nor the metrics that it gets."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for file in RUN_FILES:
            (folder / file).write_text("of the run", encoding="utf-8")
        handed_over = _train(subject.build(folder), 0, TOTAL_STEPS)
        for file in RUN_FILES:
            text = (folder / file).read_text(encoding="utf-8") if (folder / file).exists() else None
            expect(
                text == "of the run", f"expected the run's {file} to be left alone, saw it {'changed' if text else 'gone'}"
            )
        for metrics in handed_over:
            expected = _values(metrics.step)
            expect(metrics.values == expected, f"expected the metrics {expected} to be left alone, saw {metrics.values}")


def _train(watcher: Watcher, first: int, last: int) -> list[StepMetrics]:
    """Tell a watcher of a training from one step to another, and give the metrics that it was handed."""
    handed_over = []
    _tell(watcher, "on_batch_size", BATCH_SIZE)
    _tell(watcher, "on_start", first, TOTAL_STEPS)
    _tell(watcher, "on_phase", "a phase")
    _tell(watcher, "on_phase_end")
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
    _tell(watcher, "on_phase", "a phase after the last step")
    _tell(watcher, "on_phase_end")
    _tell(watcher, "on_result", {"routes": {"dense": {"knn1": 50.0, "macs": 1000, "ratio": 1.0}}, "advice": ["train on"]})
    _tell(watcher, "on_picture", "gates", PICTURE)
    _tell(watcher, "on_close")
    return handed_over


def _tell(watcher: Watcher, event: str, *about: Any) -> None:
    try:
        getattr(watcher, event)(*about)
    except Exception as error:
        raise ConformanceError(f"expected {event} to be borne, saw {type(error).__name__}: {error}") from error


def _values(step: int) -> dict[str, float]:
    return {"loss": 1.0 / step, "terms/contrastive": 0.5 / step, "cost_ratio": 0.3}


CHECKS = (is_a_watcher, it_bears_every_event, it_bears_a_resumed_training, the_run_is_left_alone)
