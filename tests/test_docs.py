"""What the docs show is true of the code."""

from __future__ import annotations

import itertools
import re
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from helpers.command_line import call, done, parsed
from helpers.forked import run_forked
from helpers.settings import config_of
from ssl_dc.model import Model
from ssl_dc.plugins.registry import registry
from ssl_dc.run_folder import RunFolder
from ssl_dc.testing import run_checks
from ssl_dc.testing.protocol import SMALL

REPOSITORY = Path(__file__).parent.parent
PAGES = sorted([*REPOSITORY.glob("*.md"), *REPOSITORY.glob("docs/**/*.md")])


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(), re.DOTALL)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#]+)\)", page.read_text())
    missing = [target for target in targets if "://" not in target and not (page.parent / target).exists()]
    assert not missing


def anchors(page: Path) -> set[str]:
    """What links to the headings of a page end with, after the #."""
    prose = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ (.*)", prose, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_to_headings_lead_to_one(page: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]*)#([^)\s]+)\)", page.read_text())
    inside = [(page.parent / target if target else page, anchor) for target, anchor in links if "://" not in target]
    assert [f"{file.name}#{anchor}" for file, anchor in inside if anchor not in anchors(file)] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_compiles(page: Path) -> None:
    for block in blocks(page, "python"):
        compile(block, str(page), "exec")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_and_options_exist(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_objective.py").write_text("")
    monkeypatch.chdir(tmp_path)
    shown = [
        line for block in blocks(page, "sh") for line in block.splitlines() if "ssl-dc " in line or "-m ssl_dc" in line
    ]
    for line in shown:
        words = shlex.split(re.split(r"ssl-dc |-m ssl_dc ", line)[-1], comments=True)
        # --help is answered once the words are parsed, before anything is done with them
        answered = call(*itertools.takewhile(lambda word: word not in {"&&", "|", ">"}, words), "--help")
        assert answered.exit_code == 0, f"{line}\n{answered.output}"


def test_the_readme_has_two_lines_to_install_by() -> None:
    lines = [line for line in (REPOSITORY / "README.md").read_text().splitlines() if line.startswith("pip install")]
    assert len(lines) == 2, "the CI script runs just these"


@pytest.mark.long
def test_the_script_of_the_library_page_runs_as_it_stands(tmp_path: Path) -> None:
    script = next(block for block in blocks(REPOSITORY / "docs" / "library.md", "python") if "ssl_dc.Trainer(" in block)
    said = run_forked(f"import os; os.chdir({str(tmp_path)!r})\n{script}")
    assert said.returncode == 0, said.stderr
    assert re.fullmatch(r"gated features \(1797, 16\) at 0\.(39|40)\d of the dense cost\n", said.stdout)


@contextmanager
def installed(page: str, package: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The plugin that a page shows, file by file, as if its package were installed."""
    for block in blocks(REPOSITORY / "docs" / page, "python"):
        written = re.match(rf"# ({package}/\w+\.py)\b", block)
        if written:
            file = folder / written.group(1)
            file.parent.mkdir(exist_ok=True)
            file.write_text(block)
    info = folder / f"ssl_dc_{package}-0.1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: ssl-dc-{package}\nVersion: 0.1.0\n")
    (info / "entry_points.txt").write_text(f"[ssl_dc]\n{package} = {package}\n")
    monkeypatch.syspath_prepend(str(folder))
    registry.cache_clear()
    try:
        yield
    finally:
        registry.cache_clear()
        for module in [name for name in sys.modules if name.partition(".")[0] == package]:
            del sys.modules[module]


def test_the_plugin_of_the_page_keeps_every_promise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with installed("plugins.md", "spread", tmp_path, monkeypatch):
        outcomes = run_checks(registry().find("objective", "spread"))
    assert [outcome for outcome in outcomes if outcome.state == "failed"] == []
    assert [outcome.name for outcome in outcomes if outcome.state != "passed"] == ["compiles_whole_if_it_claims_to"]


@pytest.mark.long
def test_the_protocol_of_the_page_keeps_every_promise_and_is_a_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_of(SMALL)
    run = RunFolder.create(tmp_path / "run", config)
    run.save_model(Model.untrained(config).encoder)
    with installed("evaluation.md", "deviation", tmp_path, monkeypatch):
        outcomes = run_checks(registry().find("protocol", "deviation"))
        words = ["evaluate", run.path, "--protocol", "deviation", "--images", "12"]
        table, printed = done(*words), parsed(*words)
        told = done("evaluate", "--protocol", "deviation", "--help")
    assert [outcome for outcome in outcomes if outcome.state == "failed"] == []
    assert "its_picture_is_drawn" in [outcome.name for outcome in outcomes if outcome.state != "passed"]
    assert "features of 12 held-out images" in table
    assert set(printed["routes"]) == {"dense", "gated"}
    assert "--images" in told
