"""examples/first_run.ipynb runs from its first cell to its last."""

from __future__ import annotations

import json
import re
import shutil
import warnings
from pathlib import Path
from typing import Any

import pytest

from helpers.shown_code import REPOSITORY

NOTEBOOK = REPOSITORY / "examples" / "first_run.ipynb"


def code_cells(*, slow_too: bool) -> list[str]:
    """The cells; those that take long carry the tag ``slow``."""
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    return [
        "".join(cell["source"])
        for cell in cells
        if cell["cell_type"] == "code" and (slow_too or "slow" not in cell["metadata"].get("tags", []))
    ]


@pytest.mark.long
@pytest.mark.usefixtures("small_trainings")
def test_the_cells_run_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As programs, on a tiny network. What a kernel shows is tested by hand, with -m slow."""
    pytest.importorskip("pandas")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "__main__"}
    for source in code_cells(slow_too=False):
        exec(compile(source, NOTEBOOK.name, "exec"), names)
    assert (tmp_path / "digits.npy").is_file()


def test_it_is_stored_without_outputs() -> None:
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    assert [cell for cell in cells if cell.get("outputs") or cell.get("execution_count")] == []


@pytest.mark.slow
def test_a_kernel_runs_it_as_it_stands(tmp_path: Path) -> None:
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    shutil.copy(NOTEBOOK, tmp_path)
    book = nbformat.read(tmp_path / NOTEBOOK.name, as_version=4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # nbclient's own
        where = {"metadata": {"path": str(tmp_path)}}
        nbclient.NotebookClient(book, timeout=600, kernel_name="python3", resources=where).execute()
    shown = [
        output["data"] for cell in book.cells if cell.cell_type == "code" for output in cell.outputs if "data" in output
    ]
    assert re.search(r"dense.*gated", shown[1]["text/html"], re.DOTALL), "the run shows what it reached"
    assert "<iframe" in shown[-1]["text/html"], "the report stands in a frame"
