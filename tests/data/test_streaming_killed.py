"""The benchmark of streaming, small: a training over tar files that is killed goes on at the exact record."""

from __future__ import annotations

import json
from pathlib import Path

from helpers.command_line import run_python

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "streaming.py"


def test_a_killed_training_goes_on_at_the_exact_record(tmp_path: Path) -> None:
    sizes = {"records": 600, "shard": 100, "batch": 20, "every": 5, "workers": 1}
    words = [f"--{name}={value}" for name, value in sizes.items()]
    said = run_python(BENCHMARK, tmp_path, "--kind", "webdataset", *words)
    assert said.returncode == 0, said.stderr
    found = json.loads((tmp_path / "streaming.json").read_text())["webdataset"]
    assert found["resumed_from_step"] >= 15
    assert found["killed_after_step"] < 30
    assert (found["records_seen"], found["records_seen_twice"]) == (600, 0)
    assert found["same_records"]
    assert found["same_metrics"]
    assert found["same_weights"]
