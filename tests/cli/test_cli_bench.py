"""``ssl-dc bench``."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

import ssl_dc
from helpers.command_line import call, done, parsed, refused, successful
from ssl_dc.bench.runtimes import RUNTIMES, Unavailable
from ssl_dc.cli import bench as bench_command

SHORTLY = ("--seconds", "0.1", "--images", "4", "--batch", "2", "--threads", "1")
QUICK = [*SHORTLY, "--runtime", "eager", "--runtime", "executor", "--accuracy-images", "0"]


@pytest.mark.long
def test_bench_times_every_way(gated_run: Path) -> None:
    result = successful(call("bench", gated_run, *QUICK, "--json"))
    measured = json.loads(result.stdout)
    assert measured["quality"] is None
    single, batch = measured["situations"]
    assert (single["batch"], single["threads"], batch["batch"]) == (1, 1, 2)
    gated = {"gated: masked", "gated: executor", "gated: executor-int8"}
    assert set(single["ways"]) == {"dense: eager", "dense: executor", *gated}
    assert single["ways"]["gated: executor-int8"]["precision"] == "int8"
    assert single["promised_speed_up"] == pytest.approx(1 / single["cost_ratio"])
    fastest = single["ways"][single["fastest_dense"]]
    assert fastest["speed_up"] == 1
    assert fastest["p10"] <= fastest["median"] <= fastest["p90"]
    kept = single["ways"]["gated: executor"]["speed_up"] / single["promised_speed_up"]
    assert single["kept_share_of_promise"] == pytest.approx(kept)
    faster = single["ways"]["dense: executor"]["median"] / single["ways"]["gated: executor"]["median"]
    assert single["gates_save_time"] is (faster > 1) or faster == pytest.approx(1, rel=0.2)
    said = result.stderr.splitlines()
    assert said[0].startswith("Timing takes at least ")
    assert "and measuring accuracy" not in said[0]
    assert "measuring batch 1, 1 thread (1 of 2)" in said
    assert measured["images"] == 4


@pytest.mark.parametrize("seconds", ["nan", "inf", "-inf", "0", "soon"])
def test_bench_refuses_seconds_that_are_no_time(seconds: str, gated_run: Path) -> None:
    assert "Invalid value for '--seconds'" in refused("bench", gated_run, "--seconds", seconds)


@pytest.mark.long
def test_bench_shows_the_accuracy_of_each_way_beside_its_time(gated_run: Path) -> None:
    result = successful(
        call("bench", gated_run, *QUICK, "--runtime", "onnxruntime-int8", "--accuracy-images", "300", "--json")
    )
    measured = json.loads(result.stdout)
    ways = measured["quality"]["ways"]
    assert set(ways) >= {"dense: onnxruntime-int8", "gated: executor", "gated: executor-int8"}
    assert {way["precision"] for way in ways.values()} == {"float32", "int8"}
    for way in ("dense: onnxruntime-int8", "gated: executor-int8"):
        assert ways[way]["mebibytes"] == pytest.approx(ways["gated: executor"]["mebibytes"] / 4)
    assert 0 < measured["quality"]["test_images"] <= measured["quality"]["train_images"] <= 300
    assert all(0 < way["knn"] <= 100 for way in ways.values())
    assert measured["quality"]["recommended"] in ways


@pytest.mark.long
def test_bench_on_another_data_set(gated_run: Path) -> None:
    others = ("--eval-data", "digits", "--eval-data-set", "test_limit=20")
    measured = parsed("bench", gated_run, *SHORTLY, "--runtime", "eager", "--accuracy-images", "300", *others)
    assert measured["quality"]["test_images"] == 20
    assert "belong to --eval-data" in refused("bench", gated_run, "--eval-data-root", "x")
    gone = refused("bench", gated_run, "--eval-data", "folder", "--eval-data-root", "gone")
    assert "--eval-data-root" in gone


def test_torch_is_silent_about_cuda_that_nothing_uses(gated_run: Path) -> None:
    logger = logging.getLogger("torch.utils.cpp_extension")  # warns of a CUDA_HOME without a GPU, and of nothing else
    logger.setLevel(logging.WARNING)
    done("bench", gated_run, "--profile", "--images", "1")
    assert not logger.isEnabledFor(logging.WARNING)


@pytest.mark.long
def test_bench_as_a_table(gated_run: Path) -> None:
    said = " ".join(done("bench", gated_run, *QUICK).split())
    assert "gated: executor" in said
    assert "the executor keeps" in said


def test_bench_of_a_run_without_gates(ungated_run: Path) -> None:
    (single, _) = parsed("bench", ungated_run, *QUICK)["situations"]
    assert set(single["ways"]) == {"dense: eager", "dense: executor"}
    assert single["cost_ratio"] is None


@pytest.mark.long
def test_profile(gated_run: Path, tmp_path: Path) -> None:
    profile = parsed("bench", gated_run, "--profile", "--images", "2", "--output", tmp_path / "profile.svg")
    layers = {layer["layer"]: layer for layer in profile["layers"]}
    assert layers["conv1"]["share"] == 1
    assert layers["stages.layer1.0.conv1"]["dense"] > 0
    assert layers["stages.layer1.0.hidden.gate"]["dense"] == 0 < layers["stages.layer1.0.hidden.gate"]["gated"]
    assert profile["dense_us"] == pytest.approx(sum(layer["dense"] for layer in profile["layers"]))
    assert (tmp_path / "profile.svg").read_text().startswith("<?xml")
    assert "microseconds an image" in done("bench", gated_run, "--profile", "--images", "2")


def test_runtimes_need_one_in_float32(gated_run: Path) -> None:
    named = ("--runtime", "executor-int8", "--runtime", "executor-bf16")
    message = refused("bench", gated_run, *SHORTLY, *named)
    assert "--runtime must also name one in float32, over which speed-ups are: eager, folded" in message
    assert "not only executor-int8, executor-bf16" in message


def test_bench_says_why_no_runtime_in_float32_runs(gated_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object) -> Unavailable:
        return Unavailable("it is not installed")

    monkeypatch.setattr("ssl_dc.bench.measure.runtime_or_reason", missing)
    result = call("bench", gated_run, *SHORTLY, "--runtime", "onnxruntime", "--accuracy-images", "0")
    assert result.exit_code == 1
    said = "no dense way in float32, over which speed-ups are, runs here (onnxruntime: it is not installed)"
    assert said in result.stderr


def test_wrong_calls_of_bench(gated_run: Path, ungated_run: Path, tmp_path: Path) -> None:
    assert "--output is for the chart of --profile" in refused("bench", gated_run, "--output", tmp_path / "x.png")
    assert "its ending must be one of" in refused("bench", gated_run, "--profile", "--output", tmp_path / "x.txt")
    assert "is not a run folder" in refused("bench", tmp_path)
    no_gates = call("bench", ungated_run, "--profile")
    assert no_gates.exit_code == 1
    assert "no gated route" in no_gates.stderr


def test_help_lists_the_runtimes_that_there_are() -> None:
    assert tuple(RUNTIMES) == bench_command.RUNTIMES


@pytest.mark.parametrize(
    ("words", "option"),
    [
        (("--at-most", "2ms", "--runtime", "eager"), "--runtime"),
        (("--at-most", "2ms", "--batch", "4"), "--batch"),
        (("--profile", "--seconds", "1"), "--seconds"),
        (("--profile", "--accuracy-images", "0"), "--accuracy-images"),
    ],
)
def test_options_that_have_no_effect_are_refused(finished_run: ssl_dc.Run, words: tuple[str, ...], option: str) -> None:
    assert f"{option} has no effect with {words[0]}" in refused("bench", finished_run.folder, *words)


def test_a_profile_is_of_one_number_of_threads(finished_run: ssl_dc.Run) -> None:
    assert "give --threads once" in refused("bench", finished_run.folder, "--profile", "--threads", "1", "--threads", "2")
