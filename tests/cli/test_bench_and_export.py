"""``ssl-dc bench`` and ``ssl-dc export`` as a user calls them, on a tiny trained run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import ssl_dc
from ssl_dc.bench.runtimes import RUNTIMES
from ssl_dc.cli import bench as bench_command
from ssl_dc.cli import export as export_command
from ssl_dc.cli import main
from ssl_dc.export.exported_file import FORMATS

TINY = {
    "budget.target": 0.5,
    "data.limit": 64,
    "data.test_limit": 32,
    "training.epochs": 1,
    "training.batch_size": 32,
    "training.workers": 0,
    "objective.expander_width": 16,
    "backbone.width": 8,
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return ssl_dc.train(TINY, output=tmp_path_factory.mktemp("runs") / "tiny").folder


@pytest.fixture(scope="module")
def ungated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    settings = {key: value for key, value in TINY.items() if key != "budget.target"} | {"gating.name": "none"}
    return ssl_dc.train(settings, output=tmp_path_factory.mktemp("runs") / "ungated").folder


def call(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments], prog_name="ssl-dc")


def refused(*arguments: str | Path) -> str:
    result = call(*arguments)
    assert result.exit_code == 2, result.stderr or result.exception
    assert "Traceback" not in result.stderr
    return result.stderr


QUICK = (
    "--seconds",
    "0.1",
    "--images",
    "4",
    "--batch",
    "2",
    "--threads",
    "1",
    "--runtime",
    "eager",
    "--runtime",
    "executor",
)


def test_bench_times_every_way(run: Path) -> None:
    result = call("bench", run, *QUICK, "--json")
    assert result.exit_code == 0, result.stderr
    single, batch = json.loads(result.stdout)["situations"]
    assert (single["batch"], single["threads"], batch["batch"]) == (1, 1, 2)
    assert set(single["ways"]) == {"dense: eager", "dense: executor", "gated: masked", "gated: executor"}
    assert single["promised_speed_up"] == pytest.approx(1 / single["cost_ratio"])
    fastest = single["ways"][single["fastest_dense"]]
    assert fastest["speed_up"] == 1
    assert fastest["p10"] <= fastest["median"] <= fastest["p90"]
    kept = single["ways"]["gated: executor"]["speed_up"] / single["promised_speed_up"]
    assert single["kept_share_of_promise"] == pytest.approx(kept)
    faster = single["ways"]["dense: executor"]["median"] / single["ways"]["gated: executor"]["median"]
    assert single["gates_save_time"] is (faster > 1) or faster == pytest.approx(1, rel=0.2)
    assert "measuring batch 1, 1 thread (1 of 2)" in result.stderr


@pytest.mark.parametrize("seconds", ["nan", "inf", "-inf", "0", "soon"])
def test_bench_refuses_seconds_that_are_no_time(seconds: str, run: Path) -> None:
    assert "Invalid value for '--seconds'" in refused("bench", run, "--seconds", seconds)


@pytest.mark.parametrize("share", ["nan", "inf", "-0.1", "1.1", "few"])
def test_export_refuses_shares_that_are_none(share: str, run: Path) -> None:
    assert "Invalid value for '--static'" in refused("export", run, "--route", "gated", "--static", share)


def test_bench_as_a_table(run: Path) -> None:
    result = call("bench", run, *QUICK)
    assert result.exit_code == 0, result.stderr
    assert "gated: executor" in result.stdout
    assert "the executor keeps" in " ".join(result.stdout.split())


def test_bench_of_a_run_without_gates(ungated: Path) -> None:
    (single, _) = json.loads(call("bench", ungated, *QUICK, "--json").stdout)["situations"]
    assert set(single["ways"]) == {"dense: eager", "dense: executor"}
    assert single["cost_ratio"] is None


def test_profile(run: Path, tmp_path: Path) -> None:
    result = call("bench", run, "--profile", "--images", "2", "--output", tmp_path / "profile.svg", "--json")
    assert result.exit_code == 0, result.stderr
    profile = json.loads(result.stdout)
    layers = {layer["layer"]: layer for layer in profile["layers"]}
    assert layers["conv1"]["share"] == 1
    assert layers["stages.layer1.0.conv1"]["dense"] > 0
    assert layers["stages.layer1.0.hidden.gate"]["dense"] == 0 < layers["stages.layer1.0.hidden.gate"]["gated"]
    assert profile["dense_us"] == pytest.approx(sum(layer["dense"] for layer in profile["layers"]))
    assert (tmp_path / "profile.svg").read_text().startswith("<?xml")
    assert "microseconds an image" in call("bench", run, "--profile", "--images", "2").stdout


def test_wrong_calls_of_bench(run: Path, ungated: Path, tmp_path: Path) -> None:
    assert "--output is for the chart of --profile" in refused("bench", run, "--output", tmp_path / "x.png")
    assert "its ending must be one of" in refused("bench", run, "--profile", "--output", tmp_path / "x.txt")
    assert "is not a run folder" in refused("bench", tmp_path)
    no_gates = call("bench", ungated, "--profile")
    assert no_gates.exit_code == 1
    assert "no gated route" in no_gates.stderr


def test_export_writes_into_the_run_and_says_so(run: Path) -> None:
    result = call("export", run, "--format", "torch", "--json")
    assert result.exit_code == 0, result.stderr
    written = json.loads(result.stdout)
    assert written["file"] == str(run / "dense.pt2")
    assert written["bytes"] == (run / "dense.pt2").stat().st_size > 0
    assert f"written: {run / 'gated.pt2'} (" in call("export", run, "--route", "gated", "--format", "torch").stdout


def test_static_export_compares_the_networks(run: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    path = tmp_path / "static.onnx"
    result = call("export", run, "--route", "gated", "--static", "0.5", "--output", path, "--json")
    assert result.exit_code == 0, result.stderr
    networks = json.loads(result.stdout)["networks"]
    assert set(networks) == {"dense", "gated", "static"}
    assert networks["static"]["parameters"] < networks["dense"]["parameters"]
    assert networks["static"]["macs"] < networks["dense"]["macs"]
    assert path.stat().st_size > 0
    assert "kNN-1 %" in call("export", run, "--route", "gated", "--static", "0.5", "--output", path).stdout


def test_wrong_calls_of_export(run: Path, ungated: Path, tmp_path: Path) -> None:
    assert "give --route gated" in refused("export", run, "--static", "0.5")
    assert "give --static SHARE" in refused("export", run, "--multiple", "16")
    assert "--output is empty" in refused("export", run, "--output", "")
    assert "there is no folder" in refused("export", run, "--output", tmp_path / "no" / "x.onnx")
    assert "no gates" in refused("export", run, "--route", "gated", "--format", "torchvision")
    assert "width 64" in refused("export", run, "--format", "torchvision")
    assert "no gated route" in refused("export", ungated, "--route", "gated", "--format", "torch")
    assert "is not a run folder" in refused("export", tmp_path)


def test_help_lists_what_there_is() -> None:
    assert tuple(RUNTIMES) == bench_command.RUNTIMES
    assert dict(FORMATS) == export_command.FORMATS
