"""Trackers of Accelerate's, by the real packages without a network: config, curves, result and pictures are in them."""

from __future__ import annotations

import json
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from accelerate.tracking import LOGGER_TYPE_TO_CLASS

import ssl_dc
from helpers.settings import SHORT
from ssl_dc.errors import ConfigError
from ssl_dc.trackers import ACCELERATED
from ssl_dc.trackers.accelerated import Accelerated
from ssl_dc.trackers.options import AimOptions

SETTINGS = {**SHORT, "training.log_every": 1}


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Nothing leaves the machine; what packages keep of themselves goes into a folder of the test."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "mlruns").as_uri())
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    return tmp_path


def curves_of_run(folder: Path) -> dict[str, list[float]]:
    """Each metric of a run's own file."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return {key: [line[key] for line in lines] for key in lines[0] if key not in ("step", "epoch")}


@pytest.mark.slow  # of 14 runs one had no config in wandb's file; why is not known
def test_wandb_holds_the_run(offline: Path) -> None:
    pytest.importorskip("wandb", reason="wandb is not installed: pip install wandb")
    run = ssl_dc.train({**SETTINGS, "tracker.name": "wandb"}, output=offline / "run")
    (file,) = (offline / "run" / "wandb").glob("offline-run-*/run-*.wandb")
    records = list(wandb_records(file))
    config = {item["key"] or item["nested_key"][0]: item["value"] for item in records_of(records, "config")}
    assert config.get("seed") == run.model.config.seed, [record.WhichOneof("record_type") for record in records]
    assert config["backbone.width"] == run.model.config.backbone.width
    history = records_of(records, "history")
    for name, values in curves_of_run(run.folder).items():
        assert [row[name] for row in history if name in row][: len(values)] == values
    keys = {key for row in history for key in row}
    result = json.loads((run.folder / "result.json").read_text())
    (knn1,) = (row["result/routes/dense/knn1"] for row in history if "result/routes/dense/knn1" in row)
    assert knn1 == result["routes"]["dense"]["knn1"]
    assert {"result/table", "gates"} <= {key.partition(".")[0] for key in keys}
    pictures = list((offline / "run" / "wandb").glob("offline-run-*/files/media/images/gates_*.png"))
    assert [picture.read_bytes()[:4] for picture in pictures] == [b"\x89PNG"]


def wandb_records(file: Path) -> Iterator[Any]:
    """The records of an offline run: LevelDB's log format, in blocks of 32 KiB, after a header of 7 bytes."""
    from wandb.proto import wandb_internal_pb2

    content, place, data = file.read_bytes(), 7, b""
    while place + 7 <= len(content):
        left = 32768 - place % 32768
        if left < 7:
            place += left
            continue
        length, kind = int.from_bytes(content[place + 4 : place + 6], "little"), content[place + 6]
        data += content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # a whole record, or the last part of one
            record = wandb_internal_pb2.Record()
            record.ParseFromString(data)
            data = b""
            yield record


def records_of(records: list[Any], kind: str) -> list[Any]:
    if kind == "config":
        items = [
            item for record in records if record.WhichOneof("record_type") == "run" for item in record.run.config.update
        ]
        items += [
            item for record in records if record.WhichOneof("record_type") == "config" for item in record.config.update
        ]
        return [
            {"key": item.key, "nested_key": list(item.nested_key), "value": json.loads(item.value_json)} for item in items
        ]
    rows = [record.history.item for record in records if record.WhichOneof("record_type") == "history"]
    return [{item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in row} for row in rows]


@pytest.mark.long
def test_mlflow_holds_the_run_and_goes_on_with_it(offline: Path) -> None:
    mlflow = pytest.importorskip("mlflow", reason="mlflow is not installed: pip install mlflow-skinny")
    run = ssl_dc.train({**SETTINGS, "tracker.name": "mlflow", "tracker.project": "mine"}, output=offline / "run")
    client = mlflow.MlflowClient()
    (experiment,) = client.search_experiments(filter_string="name = 'mine'")
    (tracked,) = client.search_runs([experiment.experiment_id])
    assert tracked.info.run_name == "run"
    assert tracked.info.status == "FINISHED"
    assert tracked.data.params["backbone.width"] == str(run.model.config.backbone.width)
    for name, values in curves_of_run(run.folder).items():
        assert [point.value for point in client.get_metric_history(tracked.info.run_id, name)] == values
    result = json.loads((run.folder / "result.json").read_text())
    assert tracked.data.metrics["result/routes/gated/ratio"] == result["routes"]["gated"]["ratio"]
    files = {file.path for file in client.list_artifacts(tracked.info.run_id)}
    assert files == {"result.json", "gates.png"}

    ssl_dc.resume(run.folder, epochs=2)
    (resumed,) = client.search_runs([experiment.experiment_id])
    assert resumed.info.run_id == tracked.info.run_id
    steps = [point.step for point in client.get_metric_history(tracked.info.run_id, "loss")]
    assert sorted(set(steps)) == [1, 2, 3, 4]


def test_trackio_holds_the_run(offline: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACKIO_DIR", str(offline / "trackio"))
    pytest.importorskip("trackio", reason="trackio is not installed: pip install trackio")
    run = ssl_dc.train({**SETTINGS, "tracker.name": "trackio"}, output=offline / "run")
    with closing(sqlite3.connect(offline / "trackio" / "ssl-dc.db")) as database:
        rows = [json.loads(text) for (text,) in database.execute("SELECT metrics FROM metrics ORDER BY id")]
        ((config,),) = database.execute("SELECT config FROM configs")
    assert json.loads(config)["backbone.width"] == run.model.config.backbone.width
    for name, values in curves_of_run(run.folder).items():
        assert [row[name] for row in rows if name in row] == values
    assert rows[-1]["result/routes/dense/ratio"] == 1


def test_a_package_that_is_not_installed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ssl_dc.trackers.accelerated.get_available_trackers", list)
    with pytest.raises(ConfigError, match="--tracker aim needs a package that is not installed: pip install aim"):
        Accelerated(AimOptions(), tmp_path)


def test_the_trackers_are_those_that_accelerate_knows() -> None:
    """A part of its own writes for TensorBoard."""
    assert {*ACCELERATED, "tensorboard"} == set(LOGGER_TYPE_TO_CLASS)


def test_naming_a_tracker_imports_none(tmp_path: Path) -> None:
    ssl_dc.RunConfig.model_validate({"tracker": {"name": "wandb"}})
    assert "clearml" not in sys.modules
