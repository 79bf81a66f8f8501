"""``ssl-dc reproduce`` as a user calls it: real, tiny trainings on the digits."""

from __future__ import annotations

import csv
import json
import re
import shutil
from pathlib import Path

import pytest
from click.testing import Result

from helpers.command_line import call, done, successful
from helpers.settings import TINY
from ssl_dc import api
from ssl_dc.reproduction import runner
from ssl_dc.reproduction.plan import SCALES
from ssl_dc.trackers.base import StepMetrics, Watcher

SMALL = {
    **TINY,
    "data.limit": 48,
    "data.test_limit": 20,
    "objective.expander_width": 8,
    "training.epochs": 3,
    "gating.noise": 0.0,
}


@pytest.fixture(autouse=True)
def tiny_scale(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SCALES, "small", SMALL)
    monkeypatch.setattr(runner, "LINEAR_SEEDS", 2)


def reproduce(output: Path, table: str, *options: str, seeds: int = 1) -> Result:
    arguments = ["reproduce", table, "--dataset", "digits", "--budgets", "0.5", "--seeds", str(seeds)]
    return call(*arguments, "--output", output, *options)


def verbs(result: Result) -> list[str]:
    """What was done to which system, from the progress: ``train dual``."""
    said = [line.partition("] ")[2] for line in result.stderr.splitlines() if line.startswith("[")]
    return [f"{verb} {name.split('-')[2]}" for verb, name in (line.split(" ", 1) for line in said)]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    """Table 3, whole: two runs. Tests that change the folder work on a copy."""
    output: Path = tmp_path_factory.mktemp("reproduction") / "made"
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(SCALES, "small", SMALL)
        return output, successful(reproduce(output, "table3"))


@pytest.fixture
def copied(finished: tuple[Path, Result], tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished[0], tmp_path / "copy"))


# Dry run


def test_dry_run_trains_nothing_and_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "train", lambda *_args, **_kwargs: pytest.fail("a dry run trained"))
    result = successful(reproduce(tmp_path / "out", "table1", "--dry-run", seeds=2))
    assert list(tmp_path.iterdir()) == []
    lines = [line for line in result.stdout.splitlines() if "-seed" in line]
    assert len(lines) == 2 * 3
    assert "6 runs, 0 done" in result.stdout
    assert "yes" not in result.stdout
    assert result.stderr == ""


def test_dry_run_of_every_table_at_the_papers_scale(tmp_path: Path) -> None:
    for table, dataset in [("table1", "imagenet100"), ("table3", "stl10"), ("table6", "cifar100")]:
        words = ["reproduce", table, "--dataset", dataset, "--scale", "paper", "--seeds", "1", "--dry-run"]
        said = done(*words, "--output", tmp_path / "out")
        assert "500" in said
        assert " d " in said, "the paper's scale takes days"
        assert "estimate" in said


def test_dry_run_says_what_is_done_and_times_the_rest_by_it(finished: tuple[Path, Result]) -> None:
    result = successful(reproduce(finished[0], "table3", "--dry-run", seeds=2))
    assert "4 runs, 2 done" in result.stdout
    lines = [line for line in result.stdout.splitlines() if "-seed" in line]
    timed = [re.search(r" \d+ (s|min|h)\b", line) is not None for line in lines]
    assert [("yes" in line, time) for line, time in zip(lines, timed, strict=True)] == [(True, False), (False, True)] * 2
    assert "from the speed of 2 runs in this folder" in " ".join(result.stdout.split())


# Real runs


def test_table_is_written_as_markdown_csv_and_html(finished: tuple[Path, Result]) -> None:
    output, result = finished
    stem = output / "table3-digits-small"
    assert verbs(result) == ["train barlow_twins", "evaluate barlow_twins", "train dual", "evaluate dual"]
    assert result.stdout == stem.with_suffix(".md").read_text(encoding="utf-8")
    assert result.stdout.startswith("# Table 3: Barlow Twins against VICReg (digits, small scale, knn1, top-1 %)\n")
    with stem.with_suffix(".csv").open(encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    assert [(row["system"], row["budget"], row["seeds"]) for row in table] == [
        ("Barlow-Twins-Dual", "0.5", "1"),
        ("VICReg-Dual", "0.5", "1"),
    ]
    page = stem.with_suffix(".html").read_text(encoding="utf-8")
    for row in table:
        for number in (row["dense_ours"], row["gated_ours"], row["reduction_ours"]):
            assert 0 <= float(number) <= 100
            assert f"<td>{number}</td>" in page
            assert f" {number} |" in result.stdout


def test_numbers_are_those_of_the_runs(finished: tuple[Path, Result]) -> None:
    output, _ = finished
    with (output / "table3-digits-small.csv").open(encoding="utf-8") as file:
        dual = list(csv.DictReader(file))[1]
    (run,) = (output / "runs").glob("*-digits-dual-*")
    routes = json.loads((run / "result.json").read_text(encoding="utf-8"))["routes"]
    assert dual["dense_ours"] == f"{routes['dense']['knn1']:.2f}"
    assert dual["gated_ours"] == f"{routes['gated']['knn1']:.2f}"
    assert dual["reduction_ours"] == f"{100 * (1 - routes['gated']['ratio']):.2f}"
    (record,) = (output / "results").glob("*-digits-dual-*.json")
    known = json.loads(record.read_text(encoding="utf-8"))
    assert known["config"] == {**json.loads((run / "config.json").read_text(encoding="utf-8"))}
    assert known["knn1"]["dense"]["top1"] == routes["dense"]["knn1"]
    assert known["images_per_second"] > 0


def test_a_second_call_trains_and_evaluates_nothing(copied: Path, finished: tuple[Path, Result]) -> None:
    shutil.rmtree(copied / "runs")  # what is known needs no runs
    for ending in ("md", "csv", "html"):
        (copied / f"table3-digits-small.{ending}").unlink()
    result = successful(reproduce(copied, "table3"))
    assert verbs(result) == []
    for ending in ("md", "csv"):
        again, first = ((folder / f"table3-digits-small.{ending}").read_text() for folder in (copied, finished[0]))
        assert again == first


@pytest.mark.long
def test_a_run_that_another_table_made_is_evaluated_only(copied: Path) -> None:
    result = successful(reproduce(copied, "table1"))
    assert verbs(result) == [
        "train baseline1",
        "evaluate baseline1",
        "train baseline2",
        "evaluate baseline2",
        "evaluate dual",
    ]
    (record,) = (copied / "results").glob("*-digits-dual-*.json")
    known = json.loads(record.read_text(encoding="utf-8"))
    assert {"knn1", "linear", "images_per_second"} <= set(known)
    assert "| VICReg (Baseline-1) |  | 1 | " in result.stdout
    (line,) = [line for line in result.stdout.splitlines() if "Baseline-2" in line]
    assert line.split("|")[4].strip() == "", "the dense route of Baseline-2 was not trained"


@pytest.mark.long
def test_transfer_trains_what_is_missing_and_says_where_to(copied: Path) -> None:
    result = successful(reproduce(copied, "table2", "--to", "digits"))
    assert verbs(result) == ["train baseline1", "evaluate baseline1", "evaluate dual"]
    assert result.stdout.startswith("# Table 2: Transfer to another data set (digits to digits, small scale, transfer")
    assert (copied / "table2-digits-to-digits-small.csv").is_file()
    (record,) = (copied / "results").glob("*-digits-dual-*.json")
    known = json.loads(record.read_text(encoding="utf-8"))
    assert {"knn1", "transfer-digits"} <= set(known)
    assert verbs(successful(reproduce(copied, "table2", "--to", "digits"))) == []
    assert reproduce(copied, "table2").exit_code == 2


class StopAt(Watcher):
    """Ends the process's work after a step, as Ctrl-C does."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step(self, metrics: StepMetrics) -> None:
        if metrics.step == self.step:
            raise KeyboardInterrupt


@pytest.mark.long
def test_an_interrupted_run_goes_on_to_the_same_end(
    finished: tuple[Path, Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr("ssl_dc.progress.progress.Progress", lambda: StopAt(5))  # in the second of three epochs
        stopped = reproduce(output, "table3")
    assert stopped.exit_code != 0
    assert verbs(stopped) == ["train barlow_twins"]
    assert stopped.stdout == ""
    assert not list(output.glob("table3*"))
    resumed = successful(reproduce(output, "table3"))
    assert verbs(resumed) == ["resume barlow_twins", "evaluate barlow_twins", "train dual", "evaluate dual"]
    assert resumed.stdout == finished[1].stdout
    for name in ("barlow_twins", "dual"):
        metrics = [next((folder / "runs").glob(f"*-{name}-*")) / "metrics.jsonl" for folder in (output, finished[0])]
        assert metrics[0].read_text() == metrics[1].read_text()


def test_an_evaluation_that_failed_is_made_up_without_training(copied: Path, finished: tuple[Path, Result]) -> None:
    for record in (copied / "results").iterdir():
        record.unlink()
    result = successful(reproduce(copied, "table3"))
    assert verbs(result) == ["evaluate barlow_twins", "evaluate dual"]
    assert result.stdout == finished[1].stdout


# Wrong calls


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--budgets", "a,b"], "0.1,0.3,0.5"),
        (["--budgets", "1.5"], "budget.target"),
        (["--dataset", "cifar11"], "cifar10"),
        (["--seeds", "0"], "seeds"),
        (["--scale", "huge"], "small"),
    ],
)
def test_wrong_call_is_one_message_and_exit_status_2(options: list[str], said: str, tmp_path: Path) -> None:
    result = reproduce(tmp_path / "out", "table3", *options)
    assert result.exit_code == 2
    assert said in result.stderr
    assert "Traceback" not in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_target_of_a_transfer_is_refused_before_anything_is_trained(tmp_path: Path) -> None:
    result = reproduce(tmp_path / "out", "table2", "--to", "nope", "--dry-run")
    assert result.exit_code == 2
    assert "unknown data set 'nope'; there are: arrow, cifar10" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_damaged_record_is_named(copied: Path) -> None:
    record = next((copied / "results").iterdir())
    record.write_text("{", encoding="utf-8")
    result = reproduce(copied, "table3")
    assert result.exit_code == 2
    assert str(record) in result.stderr


@pytest.mark.slow
def test_workers_share_the_runs_of_a_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("submitit", reason="submitit is not installed")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    result = successful(reproduce(tmp_path, "table3", "--jobs", "2"))
    assert "| system |" in result.stdout
    runs = sorted((tmp_path / "runs").iterdir())
    assert len(runs) == 2
    for run in runs:
        assert len((run / "history.jsonl").read_text().splitlines()) == 1, "each is trained once"
        assert "knn1" in json.loads((tmp_path / "results" / f"{run.name}.json").read_text())
    assert verbs(successful(reproduce(tmp_path, "table3", "--jobs", "2"))) == [], "nothing is left to do"


def test_jobs_that_are_queued_are_told_as_json_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ssl_dc.jobs.workers.through_slurm", lambda *_: ["17", "18"])
    told = json.loads(reproduce(tmp_path, "table6", "--slurm", "partition=gpu", "--json").stdout)
    assert told["queued"] == ["17", "18"]
    assert told["left"]
