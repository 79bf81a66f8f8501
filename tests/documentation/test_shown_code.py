"""Every command and program that README and docs show is run as it stands, or a mark before it says why not.

Trainings are run small: the network is narrow, images have 8 pixels, and an epoch has a few steps.
"""

from __future__ import annotations

import copy
import glob
import re
import shlex
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import ssl_dc
from helpers.command_line import call, run_python
from helpers.settings import as_options
from helpers.shown_code import PAGES, REPOSITORY, Block, blocks_of
from helpers.small_trainings import SMALL, small_for

SMALLER = {
    "bench": "--seconds 0.1 --images 2 --batch 2 --accuracy-images 20",
    "evaluate .*--protocol (linear|transfer|finetune)": "--epochs 1 --seeds 1",
    "evaluate .*--protocol curve": "--epochs 1 --seconds 0.1",
    "report": "--images 20",
    "push": "--dry-run",
    "export .*--static": "--multiple 1",
}
"""What is added to other commands, the last of an option counts."""

REPLACED = {"--epochs 1000": "--epochs 2", "0.1:0.9": "0.3,0.6"}
"""What is said smaller: a training for longer, and one for nine budgets."""

SLOW = (
    r"torchrun|ssl-dc (bench|export|report)|\.report\(|umap|tsne|curve|finetune|--init|training\.init|--data arrow|datasets"
    r"|timm|conformance|run_checks"
)
"""Lines and programs that take more than a second or two, or import what takes long."""

TRAINING = r"ssl-dc train (?!.*(--dry-run|--resume))"
QUICK_TRAININGS = {"README.md", "tutorial.md", "library.md", "choose-a-budget.md"}
"""Pages whose trainings the quick suite runs; those of other pages are slow evidence, so that the suite stays quick."""

SHELLS = {"sh", "bash"}


def is_slow(block: Block, text: str) -> bool:
    """Whether a line or a program of a block is left to the slow tests."""
    trains = re.match(TRAINING, text) is not None and block.page.name not in QUICK_TRAININGS
    return trains or re.search(SLOW, text) is not None


def given(folder: Path) -> dict[str, Any]:
    """The names that programs on pages take for granted."""
    from PIL import Image

    picture = Image.open(folder / "a.jpg")
    return {
        "__name__": "__main__",
        "ssl_dc": ssl_dc,
        "torch": torch,
        "copy": copy,
        "time": time,
        "image": picture,
        "pil_image": picture,
        "array": np.asarray(picture),
        "images": torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0)),
        "settings": {**SMALL, "data.name": "digits"},
    }


def run_line(line: str) -> None:
    """Run a line of a shell: one command, or several with && between them, perhaps with variables before it."""
    for old, new in REPLACED.items():
        line = line.replace(old, new)
    words = shlex.split(line, comments=True)
    while "&&" in words:
        first = words.index("&&")
        run_line(shlex.join(words[:first]))
        words = words[first + 1 :]
    program, *rest = words
    if program == "torchrun":
        run_launch(rest)
        return
    assert program == "ssl-dc", f"no test knows how to run {program}: {line}"
    rest = [found for word in rest for found in (sorted(glob.glob(word)) if "*" in word else [word])]
    result = call(*rest, *additions(rest))
    assert result.exit_code == 0, f"{line}\n{result.stderr}{result.stdout}"


def additions(words: list[str]) -> list[str]:
    """The options that make a command of ssl-dc one of a second."""
    line = " ".join(words)
    if words[0] == "train" and "--resume" not in words:
        return as_options(small_for(line))
    return [option for pattern, options in SMALLER.items() if re.match(pattern, line) for option in options.split()]


def run_launch(words: list[str]) -> None:
    """``torchrun``, which may not be on the path."""
    module = words.index("ssl_dc")
    launched = [*words[: module + 1], *words[module + 1 :], *additions(words[module + 1 :])]
    result = run_python("-m", "torch.distributed.run", "--standalone", *launched, cwd=Path.cwd())
    assert result.returncode == 0, result.stderr[-3000:]


def run_block(block: Block, names: dict[str, Any], *, slow_too: bool) -> None:
    """Run what is to be run of a block."""
    if block.language == "python" and block.is_run() and (slow_too or not is_slow(block, block.text)):
        exec(compile(block.text, f"{block.page.name}", "exec"), names)
    if block.language in SHELLS:
        for line in block.lines():
            if block.is_run(line) and (slow_too or not is_slow(block, line)):
                run_line(line)


def pages_with(slow_too: bool) -> list[Path]:
    """The pages that have something to run."""

    def has(block: Block) -> bool:
        texts = [block.text] if block.language == "python" else block.lines() if block.language in SHELLS else []
        return any(block.is_run(text) and (slow_too or not is_slow(block, text)) for text in texts)

    return [page for page in PAGES if any(map(has, blocks_of(page)))]


def name_of(page: Path) -> str:
    return str(page.relative_to(REPOSITORY))


@pytest.mark.long
@pytest.mark.parametrize("page", pages_with(slow_too=False), ids=name_of)
@pytest.mark.usefixtures("small_trainings")
def test_what_a_page_shows_runs(page: Path, reader: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the top to the end, as a reader goes down the page, but for what takes longer than a second or two."""
    run_page(page, reader, monkeypatch, slow_too=False)


@pytest.mark.slow
@pytest.mark.parametrize("page", pages_with(slow_too=True), ids=name_of)
@pytest.mark.usefixtures("small_trainings")
def test_all_that_a_page_shows_runs(page: Path, reader: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_page(page, reader, monkeypatch, slow_too=True)


def run_page(page: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, *, slow_too: bool) -> None:
    monkeypatch.setattr("sys.path", [*sys.path])
    if slow_too:
        prepare_slow(folder)
    names = given(folder)
    for block in blocks_of(page):
        run_block(block, names, slow_too=slow_too)


def prepare_slow(folder: Path) -> None:
    """Files that only slow lines read."""
    import datasets
    import torchvision
    from safetensors.torch import save_file

    datasets.load_dataset("imagefolder", data_dir=str(folder / "flowers")).save_to_disk(str(folder / "set"))
    weights = torchvision.models.resnet18().state_dict()
    torch.save(weights, folder / "resnet18.pth")
    save_file(weights, folder / "resnet18.safetensors")


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_what_is_run_elsewhere_is_run_there(page: Path) -> None:
    for block in blocks_of(page):
        for mark in block.marks:
            if mark.file is not None:
                runner = (REPOSITORY / mark.file).read_text(encoding="utf-8")
                assert page.name in runner or page.stem in runner, f"{mark.file} does not name {page.name}"
            for named in re.findall(r"\b(?:tests|docs)/[\w/.-]*\w", mark.reason or ""):
                assert (REPOSITORY / named).exists(), f"{page.name} names {named}"
            if mark.text is not None:
                assert any(mark.text in line for line in block.lines()), f"no line has {mark.text!r}"


def test_a_mark_without_a_reason_is_refused(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("<!-- not run -->\n```sh\nls\n```\n")
    with pytest.raises(AssertionError, match="without a reason"):
        blocks_of(page)


def test_an_unmarked_command_of_another_program_fails(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("text\n\n```sh\nls # words\n```\n")
    (block,) = blocks_of(page)
    with pytest.raises(AssertionError, match="no test knows how to run ls"):
        run_block(block, {}, slow_too=False)


def test_a_program_that_fails_is_seen(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("```python\nimport ssl_dc\nssl_dc.nothing\n```\n")
    (block,) = blocks_of(page)
    with pytest.raises(AttributeError, match="nothing"):
        run_block(block, {}, slow_too=False)
