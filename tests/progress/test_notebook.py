"""A notebook, run as a person runs it: progress and pictures stand in its output."""

from __future__ import annotations

import json
import warnings
from typing import Any

import pytest

from helpers.settings import TINY
from ssl_dc.progress import notebook

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")

SETTINGS = {**TINY, "budget.target": 0.3}
TRAIN = f"""
import json, ssl_dc
run = ssl_dc.train(json.loads('{json.dumps(SETTINGS)}'), output="run")
"""
CELLS = {
    "by default": TRAIN,
    "silent": "again = ssl_dc.train(run.model.config, output='again', progress=False)",
    "gates": "ssl_dc.evaluate('run', 'gates').draw()",
    "tsne": "ssl_dc.evaluate('run', 'tsne').draw()",
    "stopped": """
import os, signal

class Stops(ssl_dc.Watcher):
    def on_step_end(self, step):
        if step == 3:
            os.kill(os.getpid(), signal.SIGINT)

try:
    ssl_dc.train(run.model.config, output="stopped", watchers=[Stops()])
except ssl_dc.Stopped as stopped:
    print(stopped)
""",
}


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, Any]]]:
    """What stands below each cell."""
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in CELLS.values()])
    where = {"metadata": {"path": str(tmp_path_factory.mktemp("notebook"))}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # nbclient's own
        nbclient.NotebookClient(book, timeout=600, kernel_name="python3", resources=where).execute()
    return {name: cell.outputs for name, cell in zip(CELLS, book.cells, strict=True)}


def shown(outputs: list[dict[str, Any]], form: str) -> list[str]:
    return [output["data"][form] for output in outputs if form in output.get("data", {})]


@pytest.mark.long
def test_training_shows_its_progress_in_one_output_that_stays(outputs: dict[str, list[dict[str, Any]]]) -> None:
    (html,) = shown(outputs["by default"], "text/html")
    assert "step 8/8 " in html
    assert '<progress value="8" max="8">' in html
    assert "images/s" in html
    assert "took 0:" in html
    assert "<br>loss " in html
    (text,) = shown(outputs["by default"], "text/plain")
    first, second = text.splitlines()
    assert first.startswith("step 8/8 [###")
    assert second.startswith("loss ")
    assert "cost " in second


@pytest.mark.long
def test_progress_can_be_left_out(outputs: dict[str, list[dict[str, Any]]]) -> None:
    assert outputs["silent"] == []


@pytest.mark.long
@pytest.mark.parametrize("name", ["gates", "tsne"])
def test_pictures_are_shown(outputs: dict[str, list[dict[str, Any]]], name: str) -> None:
    (picture,) = shown(outputs[name], "image/png")
    assert len(picture) > 10_000


@pytest.mark.long
def test_an_interrupt_is_answered_and_the_run_is_saved(outputs: dict[str, list[dict[str, Any]]]) -> None:
    said = "".join(output["text"] for output in outputs["stopped"] if output["output_type"] == "stream")
    assert "ending after this step, then saving; press Ctrl-C again to stop now" in said
    assert "stopped by SIGINT after step 3 of 8, which is saved" in said
    (text,) = shown(outputs["stopped"], "text/plain")
    assert text.startswith("step 3/8 ")


def test_no_script_is_taken_for_a_notebook() -> None:
    assert not notebook.in_a_notebook()
