"""The benchmark of streaming, small: a training over shards that is killed goes on at the exact record."""

from __future__ import annotations

import importlib.util
import json
import multiprocessing
import signal
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch

from helpers.command_line import HANGS

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "streaming.py"


@pytest.fixture
def streaming() -> Iterator[ModuleType]:
    """The benchmark's module; it computes with one thread."""
    spec = importlib.util.spec_from_file_location("streaming", BENCHMARK)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    threads = torch.get_num_threads()
    yield module
    torch.set_num_threads(threads)


@pytest.mark.long
@pytest.mark.parametrize("kind", ["webdataset", "parquet"])
def test_a_killed_training_goes_on_at_the_exact_record(
    streaming: ModuleType, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kind == "parquet":
        pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    options = Namespace(folder=tmp_path, records=600, shard=100, batch=20, workers=1, every=5)
    data = streaming.made(kind, options)
    monkeypatch.setenv("STARTED", "0")
    monkeypatch.setenv("KILL_AT", "0")
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for folder in (whole, killed):
        folder.mkdir()
    streaming.train(data, kind, whole, options)
    monkeypatch.setenv("KILL_AT", "17")
    process = multiprocessing.get_context("fork").Process(target=streaming.train, args=(data, kind, killed, options))
    process.start()
    process.join(HANGS)
    assert process.exitcode == -signal.SIGKILL
    monkeypatch.setenv("KILL_AT", "0")
    streaming.train(data, kind, killed, options)
    assert json.loads((killed / "told.json").read_text())["from"] == 15
    assert streaming.compared(whole, killed, 15, 20) == {
        "killed_after_step": 17,
        "same_records": True,
        "records_seen": 600,
        "records_seen_twice": 0,
        "same_metrics": True,
        "same_weights": True,
    }
