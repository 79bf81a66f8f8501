"""A run and its pictures: called from another folder, moved together, moved apart, and gone."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import ssl_dc
from helpers.command_line import call, done, message, parsed, successful
from helpers.settings import SHORT, as_options

SMALL = ["--budget=0.5", *as_options({key: value for key, value in SHORT.items() if key != "data.limit"})]
FEW = ["--images", "8", "--projection", "pca"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder ``project`` with pictures and a run on them. The call that trained it said ``--data-root pics``."""
    project = tmp_path_factory.mktemp("made") / "project"
    (project / "pics").mkdir(parents=True)
    noise = np.random.default_rng(0)
    for number in range(40):
        pixels = noise.integers(0, 256, (12, 12, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(project / "pics" / f"{number}.png")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(project)
        done("train", "--data", "folder", "--data-root", "pics", *SMALL, "--output", "run")
    return project


@pytest.fixture
def project(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder at another place; the place where the run was trained is gone, and the working folder is another."""
    monkeypatch.chdir(tmp_path)
    moved = Path(shutil.copytree(made, tmp_path / "moved" / "project"))
    config = json.loads((moved / "run" / "config.json").read_text())
    config["data"]["root"] = str(tmp_path / "was" / "project" / "pics")
    (moved / "run" / "config.json").write_text(json.dumps(config))
    return moved


def test_the_kept_config_names_the_absolute_folder(made: Path) -> None:
    config = json.loads((made / "run" / "config.json").read_text())
    assert config["data"]["root"] == str(made / "pics")


def test_a_run_is_evaluated_from_any_folder(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pics").mkdir()  # another folder of the name that the user gave
    monkeypatch.chdir(tmp_path)
    done("evaluate", made / "run", "--protocol", "gates")


@pytest.mark.long
def test_a_run_that_is_moved_with_its_data_finds_it(project: Path) -> None:
    assert ssl_dc.load(project / "run").config.data.root == project / "pics"
    done("evaluate", project / "run", "--protocol", "gates")
    done("train", "--resume", project / "run")


def test_a_run_whose_data_is_gone_names_the_folder_that_it_was_trained_on(project: Path, tmp_path: Path) -> None:
    shutil.rmtree(project / "pics")
    said = message("evaluate", project / "run", "--protocol", "gates")
    assert f"folder {tmp_path / 'was' / 'project' / 'pics'} (data.root of the run's config) is not there" in said
    seen = f"As seen from the run's folder it would be {project / 'pics'}, which is not there either."
    assert said.endswith(f"{seen} Add --data-root DIR if the data has moved.\n")
    elsewhere = message("evaluate", project / "run", "--protocol", "gates", "--data-root", "nowhere")
    assert "As seen from" not in elsewhere, "the user has named the place"
    assert "nowhere (--data-root or data.root) is not there" in elsewhere
    (project / "run" / "data.json").unlink()
    said = message("evaluate", project / "run", "--protocol", "gates")
    assert "As seen from" not in said
    assert said.endswith(" Add --data-root DIR if the data has moved.\n")


@pytest.mark.parametrize("kept", ["best", "earlier/2-epochs"])
def test_the_models_that_a_run_keeps_beside_its_last_one_find_its_data(project: Path, kept: str) -> None:
    folder = project / "run" / kept
    folder.mkdir(parents=True)
    for name in ("config.json", "model.safetensors"):
        shutil.copy(project / "run" / name, folder)
    assert ssl_dc.load(folder).config.data.root == project / "pics"
    lone = Path(shutil.copytree(folder, project / "lone"))
    assert ssl_dc.load(lone).config.data.root != project / "pics", "it is no part of a run"


def test_a_training_that_goes_on_looks_for_its_data_before_it_plans(project: Path) -> None:
    shutil.rmtree(project / "pics")
    for words in (["--dry-run"], []):
        said = message("train", "--resume", project / "run", *words, "--epochs", "2")
        assert "is not there" in said


def test_the_plan_of_the_rest_counts_the_pictures_as_the_first_plan_did(made: Path) -> None:
    rest = parsed("train", "--resume", made / "run", "--dry-run", "--epochs", "2")
    whole = parsed("train", "--data", "folder", "--data-root", made / "pics", *SMALL, "--dry-run")
    assert rest["pictures"] == whole["pictures"]
    assert "40 pictures, no labels; 8 of them are held out" in rest["pictures"]["summary"]


def test_the_data_of_a_training_that_goes_on_may_be_elsewhere(project: Path, tmp_path: Path) -> None:
    moved = shutil.move(project / "pics", tmp_path / "elsewhere")
    rest = parsed("train", "--resume", project / "run", "--dry-run", "--epochs", "2", "--data-root", moved)
    assert rest["pictures"]["train"] == 32


def test_the_cost_of_a_run_needs_no_pictures(project: Path) -> None:
    shutil.rmtree(project / "pics")
    result = successful(call("cost", project / "run", "--json"))
    table, recorded = json.loads(result.stdout), json.loads((project / "run" / "result.json").read_text())
    assert table["dense_macs"] == recorded["dense_macs"]
    assert table["gated_macs"] < recorded["routes"]["gated"]["macs"], "the least possible"
    assert f"images paid {recorded['routes']['gated']['ratio']:.4f} of the dense cost" in table["gated_is"]
    assert result.stderr.startswith(f"{project / 'run'}: what images pay is not measured: folder ")
    assert "is not there" in message("cost", project / "run", "--data-root", "nowhere")
    assert "is not there" in message("cost", project / "run", "--budget", "0.9")
    shown = done("cost", project / "run")
    assert "least / dense" in shown
    assert "all (least)" in shown
    assert "Those of this run cannot be opened: add --data-root DIR" in shown
    assert "of a trained run" not in shown
    (project / "run" / "result.json").unlink()
    assert parsed("cost", project / "run")["gated_is"] == "the least possible: every gate shut"


def test_a_damaged_record_of_the_data_moves_nothing(project: Path, tmp_path: Path) -> None:
    for way in (3, "nowhere", None, "\0"):
        (project / "run" / "data.json").write_text(json.dumps({"images": 32, "root_from_run": way}))
        assert ssl_dc.load(project / "run").config.data.root == tmp_path / "was" / "project" / "pics"
    (project / "run" / "data.json").write_text("{")
    assert ssl_dc.load(project / "run").config.data.root == tmp_path / "was" / "project" / "pics"


@pytest.mark.long
def test_a_report_says_what_it_leaves_out_without_the_data(project: Path, tmp_path: Path) -> None:
    shutil.rmtree(project / "pics")
    result = successful(call("report", project / "run", "-o", tmp_path / "report.html", *FEW))
    (line,) = [line for line in result.stderr.splitlines() if "does not show" in line]
    assert line.startswith("run: the page does not show what the network does with images: folder ")
    assert "is not there" in line
    assert (tmp_path / "report.html").stat().st_size > 1000
    wrong = call("report", project / "run", "-o", tmp_path / "wrong.html", *FEW, "--data-root", "wrong")
    assert wrong.exit_code == 2, "what the user names must be there"
    assert not (tmp_path / "wrong.html").exists()


@pytest.mark.long
@pytest.mark.parametrize("live", [[], ["--live"]], ids=["once", "live"])
def test_a_report_without_the_data_does_not_replace_a_page_that_is_there(project: Path, live: list[str]) -> None:
    shutil.rmtree(project / "pics")
    page = project / "run" / "report.html"
    page.write_text("made with the data")
    result = call("report", project / "run", *FEW, *live)
    assert result.exit_code == 1
    (said,) = [line for line in result.stderr.splitlines() if str(page) in line]
    assert "-o FILE" in said
    assert "--data-root" in said
    assert page.read_text() == "made with the data"
    done("report", project / "run", *FEW, *live, "-o", page)
    assert page.stat().st_size > 1000, "the user named it"
    page.unlink()
    done("report", project / "run", *FEW, *live)
    assert page.stat().st_size > 1000, "nothing was there"
