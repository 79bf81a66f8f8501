"""Metrics as JSON lines."""

from __future__ import annotations

import json
from pathlib import Path

from ssl_dc.trackers.base import StepMetrics
from ssl_dc.training.metrics_file import MetricsFile


def metrics(step: int, speed: float = 1.0) -> StepMetrics:
    return StepMetrics(step, total_steps=9, epoch=1, values={"loss": step / 3}, images_per_second=speed)


def steps(path: Path) -> list[int]:
    return [json.loads(line)["step"] for line in path.read_text().splitlines()]


def test_a_line_is_step_epoch_and_values_without_speed(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    file = MetricsFile(path)
    file.on_start(0, 9)
    file.on_step(metrics(1, speed=1.0))
    first = path.read_bytes()
    assert json.loads(first) == {"step": 1, "epoch": 1, "loss": 1 / 3}
    path.unlink()
    file.on_step(metrics(1, speed=2.0))
    assert path.read_bytes() == first


def test_each_line_is_on_disk_when_its_step_is_done(tmp_path: Path) -> None:
    file = MetricsFile(tmp_path / "metrics.jsonl")
    for step in (1, 2, 3):
        file.on_step(metrics(step))
        assert steps(file.path) == list(range(1, step + 1))


def test_going_on_drops_the_lines_after_the_resume_point(tmp_path: Path) -> None:
    file = MetricsFile(tmp_path / "metrics.jsonl")
    for step in (1, 2, 3, 4):
        file.on_step(metrics(step))
    whole = file.path.read_bytes()
    file.on_start(2, 9)
    assert steps(file.path) == [1, 2]
    for step in (3, 4):
        file.on_step(metrics(step))
    assert file.path.read_bytes() == whole


def test_a_line_that_was_cut_short_is_dropped(tmp_path: Path) -> None:
    file = MetricsFile(tmp_path / "metrics.jsonl")
    for cut in ('{"step": 2, "ep', '{"step"', "2", "\x00\x00", "{}", "[]", ""):
        file.path.write_text(f'{{"step": 1, "epoch": 1}}\n{cut}')
        file.on_start(5, 9)
        assert file.path.read_text() == '{"step": 1, "epoch": 1}\n', cut


def test_beginning_again_from_nothing_empties_the_file(tmp_path: Path) -> None:
    file = MetricsFile(tmp_path / "metrics.jsonl")
    file.on_step(metrics(1))
    file.on_start(0, 9)
    assert file.path.read_text() == ""
