"""docs/plugin-from-nothing.md: its edit makes an objective that keeps every promise, and its commands do what it shows."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from ssl_dc.plugins.registry import registry
from ssl_dc.scaffold import write_package
from ssl_dc.testing import run_checks

REPOSITORY = Path(__file__).parents[2]
PAGE = REPOSITORY / "docs" / "plugin-from-nothing.md"
BLOCKS: list[tuple[str, str]] = re.findall(
    r"^```(\w+)\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
)
"""Language and text of each block of the page, in order."""


DIFFS = [text for language, text in BLOCKS if language == "diff"]


def hunks(diff: str) -> Iterator[tuple[str, str, str]]:
    """File, old and new lines of each hunk of a diff."""
    for file, body in re.findall(r"^--- .*\n\+\+\+ (\S+)\n(.*?)(?=^--- |\Z)", diff, re.DOTALL | re.MULTILINE):
        for hunk in re.split(r"^@@ .* @@\n", body, flags=re.MULTILINE)[1:]:
            lines = hunk.splitlines(keepends=True)
            old, new = ("".join(line[1:] or line for line in lines if line[0] != sign) for sign in "+-")
            yield file, old, new


def apply(diff: str, folder: Path) -> None:
    """Change the files of a folder as a diff says."""
    for file, old, new in hunks(diff):
        text = (folder / file).read_text(encoding="utf-8")
        assert text.count(old) == 1, f"{file} has not once:\n{old}"
        (folder / file).write_text(text.replace(old, new), encoding="utf-8")


def test_the_edit_is_of_ten_lines() -> None:
    assert sum(bool(re.match(r"\+(?!\+\+ )", line)) for diff in DIFFS for line in diff.splitlines()) == 10


def test_the_edited_objective_keeps_every_promise(tmp_path: Path, install_package: Callable[[Path], None]) -> None:
    write_package(tmp_path / "spread", "objective", "spread")
    for diff in DIFFS:
        apply(diff, tmp_path)
    install_package(tmp_path / "spread")
    outcomes = run_checks(registry().find("objective", "spread"))
    assert [outcome for outcome in outcomes if outcome.state == "failed"] == []
    assert [outcome.name for outcome in outcomes if outcome.state != "passed"] == ["compiles_whole_if_it_claims_to"]


def plain(text: str) -> list[str]:
    """Lines without frames and spaces, and without the numbers that differ from machine to machine."""
    lines = []
    for line in text.splitlines():
        line = re.sub(r"\d[\d,]*\.\d+(e[+-]\d+)?|\d+(,\d{3})+", "#", line)
        line = re.sub(r"\d+", "#", line) if line.startswith("step ") else line
        line = " ".join(re.findall(r"[^\s\u2500-\u257f]+", line))
        lines.append(line)
    return [line for line in lines if line]


@pytest.fixture
def nothing(tmp_path: Path) -> Path:
    """A folder with a checkout of ssl-dc, and an environment that has what ssl-dc needs, but neither it nor a plugin."""
    (tmp_path / "ssl-dc").symlink_to(REPOSITORY)
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "env"], check=True, timeout=300)
    (site,) = (tmp_path / "env").glob("lib/python*/site-packages")
    needed = [path for path in sys.path if Path(path).name in {"site-packages", "dist-packages"}]
    (site / "needed.pth").write_text("\n".join(needed))
    return tmp_path


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_commands_do_what_the_page_shows(nothing: Path) -> None:
    pytest.importorskip("hatchling", reason="packages are built with hatchling")
    offline = {"PIP_NO_INDEX": "1", "PIP_NO_DEPS": "1", "PIP_NO_BUILD_ISOLATION": "0", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    environment = {**os.environ, **offline, "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])}
    environment.pop("PYTHONPATH", None)
    for (language, text), (following, shown) in pairwise([*BLOCKS, ("", "")]):
        if language == "diff":
            apply(text, nothing)
        if language != "sh":
            continue
        script = text if "activate" in text else f". env/bin/activate\n{text}"
        done = subprocess.run(
            ["bash", "-eo", "pipefail", "-c", script],
            cwd=nothing,
            env=environment,
            capture_output=True,
            text=True,
            timeout=800,
        )
        assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"
        if following == "text":
            said = [*plain(done.stderr), *plain(done.stdout)]
            missing = [line for line in plain(shown) if line not in said and line != "..."]
            assert not missing, f"{text}\n{done.stdout}\n{done.stderr}"
    (result,) = nothing.glob("runs/*/result.json")
    for route in json.loads(result.read_text())["routes"].values():
        assert route["knn1"] > route["knn1_untrained"]
