"""Runs beside each other: what they reach and cost, and the settings that differ."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

import ssl_dc
from helpers.command_line import call, done, message, parsed
from helpers.settings import SHORT
from ssl_dc.reporting.comparison import ComparedRoute, RunComparison


@pytest.fixture(scope="module")
def other_run(tmp_path_factory: pytest.TempPathFactory) -> ssl_dc.Run:
    return ssl_dc.train({**SHORT, "budget.target": 0.6, "seed": 1}, output=tmp_path_factory.mktemp("other") / "other")


def test_the_runs_stand_beside_each_other(finished_run: ssl_dc.Run, other_run: ssl_dc.Run) -> None:
    found = parsed("compare", finished_run.folder, other_run.folder)
    assert found["settings"] == {
        "budget.target": {"run": 0.3, "other": 0.6},
        "seed": {"run": 0, "other": 1},
    }
    expected = [
        {
            "run": label,
            "route": str(route),
            "knn1": reached.knn1,
            "ratio": reached.ratio,
            "macs": reached.macs,
            "milliseconds": None,
        }
        for label, run in (("run", finished_run), ("other", other_run))
        for route, reached in run.outcome.routes.items()
    ]
    assert found["routes"] == expected


def test_the_table_names_what_differs(finished_run: ssl_dc.Run, other_run: ssl_dc.Run) -> None:
    lines = done("compare", finished_run.folder, other_run.folder).splitlines()
    assert [line.split() for line in lines if line.startswith("budget.target")] == [["budget.target", "0.3", "0.6"]]
    assert not any("ms an image" in line for line in lines)


def test_runs_of_the_same_name_are_told_apart_by_their_paths(finished_run: ssl_dc.Run, copied_run: Path) -> None:
    same = copied_run.rename(copied_run.parent / "run")
    comparison = ssl_dc.compare([finished_run, same])
    assert list(comparison.states) == [str(finished_run.folder), str(same)]
    assert comparison.tables()[1].note == "no setting differs"


def test_a_run_that_was_interrupted_is_named(finished_run: ssl_dc.Run, copied_run: Path) -> None:
    for name in ("result.json", "model.safetensors"):
        (copied_run / name).unlink()
    comparison = ssl_dc.compare([finished_run, copied_run])
    assert {route.run for route in comparison.routes} == {"run"}
    assert comparison.tables()[0].note.startswith("copied: The training was interrupted.")


@pytest.mark.parametrize("content", [None, "", '{"routes": {"dense"', "[]", "\0"])
def test_a_result_that_is_lost_is_told_with_its_place(
    finished_run: ssl_dc.Run, copied_run: Path, content: str | None
) -> None:
    path = copied_run / "result.json"
    path.unlink() if content is None else path.write_text(content)
    wrong = "is not there" if content is None else "is damaged: it does not hold a JSON object"
    printed = " ".join(done("compare", finished_run.folder, copied_run).split())
    assert f"copied: The run has a trained model, and the last logged step is step 2 of 2, but {path} {wrong}." in printed
    assert "interrupted" not in printed
    assert f"ssl-dc train --resume {copied_run}" in printed
    shutil.rmtree(copied_run / "checkpoints")  # it cannot be resumed then
    assert "--resume" not in done("compare", finished_run.folder, copied_run)


def test_a_result_with_a_wrong_type_is_named_with_its_field(finished_run: ssl_dc.Run, copied_run: Path) -> None:
    path = copied_run / "result.json"
    result = json.loads(path.read_text())
    result["routes"]["gated"]["ratio"] = "a third"
    result["routes"]["dense"]["macs"] = True
    result["advice"] = 5
    path.write_text(json.dumps(result))
    printed = " ".join(done("compare", finished_run.folder, copied_run).split())
    said = (
        f"{path} is damaged: advice is not a list of sentences; routes.dense.macs is not a number; routes.gated.ratio is"
        " not a number. What cannot be read is shown as '-' or left out."
    )
    assert f"copied: {said}" in printed
    found = parsed("compare", finished_run.folder, copied_run)
    said += f" This evaluates the model and writes it: ssl-dc train --resume {copied_run}"
    assert [run["damage"] for run in found["runs"]] == ["", said]
    assert [route["macs"] is None for route in found["routes"]] == [False, False, True, False]


def test_runs_without_labels_have_no_column_of_accuracy() -> None:
    route = ComparedRoute("a", "dense", None, 1.0, 9.0)
    (table,) = RunComparison([route], {"a": "The training has ended, at step 2."}, {}).tables()
    assert table.columns == ["run", "route", "share of dense cost", "MACs an image"]
    assert table.rows == [["a", "dense", "1.0000", "9"]]


def test_times_are_measured_where_they_are_asked_for(finished_run: ssl_dc.Run) -> None:
    comparison = ssl_dc.compare([finished_run], time=True, seconds=0.1)
    assert all((route.milliseconds or 0) > 0 for route in comparison.routes)
    assert comparison.tables()[0].columns[-1] == "ms an image"


def test_the_picture_has_a_line_for_each_run(finished_run: ssl_dc.Run, other_run: ssl_dc.Run, tmp_path: Path) -> None:
    (axes,) = ssl_dc.compare([finished_run, other_run]).draw().axes
    lines = [line for line in axes.lines if line.get_linestyle() == "-"]
    macs = [sorted(reached.macs for reached in run.outcome.routes.values()) for run in (finished_run, other_run)]
    assert [list(line.get_xdata()) for line in lines] == macs
    done("compare", finished_run.folder, other_run.folder, "-o", tmp_path / "runs.png")
    assert (tmp_path / "runs.png").stat().st_size > 1000


def test_what_is_wrong_is_said(finished_run: ssl_dc.Run) -> None:
    assert "its ending must be one of" in message("compare", finished_run.folder, "-o", "runs.doc")
    assert "is not a run folder" in message("compare", "nowhere")
    assert call("compare").exit_code == 2
