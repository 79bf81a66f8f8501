"""A package that was written works as it stands, and what cannot work is refused before anything is written."""

from __future__ import annotations

import ast
import os
import shlex
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from helpers.command_line import call
from ssl_dc.errors import ConfigError, PluginError
from ssl_dc.plugins.kinds import KINDS
from ssl_dc.plugins.registry import registry
from ssl_dc.scaffold import kinds, next_commands, write_package
from ssl_dc.scaffold.package import TEMPLATES
from ssl_dc.testing import checks

Install = Callable[[Path], None]
REPOSITORY = Path(__file__).parents[2]


class Outcomes:
    """A pytest plugin that keeps note of how each test of a nested run went."""

    def __init__(self) -> None:
        self.of_calls: list[str] = []
        self.failures: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call":
            self.of_calls.append(report.outcome)
        if report.failed:
            self.failures.append(f"{report.nodeid}: {report.longreprtext}")


@pytest.mark.parametrize("kind", KINDS)
def test_a_new_package_passes_its_own_tests(kind: str, tmp_path: Path, install_package: Install) -> None:
    package = tmp_path / "package"
    written = write_package(package, kind, f"new-{kind}")
    assert written == sorted(path for path in package.rglob("*") if path.is_file())
    install_package(package)
    registered = registry().find(kind, f"new-{kind}")
    assert (registered.distribution, registered.version) == (f"ssl-dc-new-{kind}", "0.1.0")
    outcomes = Outcomes()
    leave_out = ("-p", "no:cacheprovider", "-p", "no:unraisableexception")  # the second looks for garbage half a second
    status = pytest.main(["-q", "-c", str(package / "pyproject.toml"), str(package), *leave_out], [outcomes])
    assert outcomes.failures == []
    assert status == 0
    assert len(outcomes.of_calls) == len(checks(kind)) + 1  # the kit, and a test of its own
    assert outcomes.of_calls.count("passed") > len(outcomes.of_calls) / 2
    assert set(outcomes.of_calls) <= {"passed", "skipped"}


def test_there_are_templates_of_every_kind_and_nothing_else() -> None:
    assert kinds() == list(KINDS)
    assert {room.name for room in TEMPLATES.iterdir()} == {"any", *KINDS}


@pytest.mark.parametrize("kind", KINDS)
def test_a_new_package_has_the_same_files_whatever_it_brings(kind: str, tmp_path: Path) -> None:
    written = {str(path.relative_to(tmp_path)) for path in write_package(tmp_path, kind, "a.B-1")}
    options = set() if KINDS[kind].options is None else {"ssl_dc_a_B_1/options.py"}
    module = {"ssl_dc_a_B_1/__init__.py", f"ssl_dc_a_B_1/{kind}.py"}
    assert written == {"README.md", "pyproject.toml", "tests/test_a_B_1.py", *module, *options}


NAMES = ["f", "any", "path", "image", "tensor", "mapping", "field", "module", "ssl-dc", "x", "SIDE", "SHAPES", "PIL"]
"""Names of parts that modules of the templates, or those that they import, use themselves."""


@pytest.mark.parametrize("kind", KINDS)
def test_no_name_hides_what_a_module_imports(kind: str, tmp_path: Path) -> None:
    for path in (path for name in NAMES for path in write_package(tmp_path / name, kind, name) if path.suffix == ".py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        bound = [alias.asname or alias.name for node in ast.walk(tree) for alias in getattr(node, "names", [])]
        bound += [node.name for node in tree.body if isinstance(node, (ast.ClassDef, ast.FunctionDef))]
        bound += [target.id for node in tree.body if isinstance(node, ast.Assign) for target in node.targets]
        assert len(bound) == len(set(bound)), path


@pytest.mark.parametrize("kind", KINDS)
def test_every_word_of_the_templates_is_put_in_and_what_is_to_be_changed_is_marked(kind: str, tmp_path: Path) -> None:
    texts = {path.name: path.read_text() for path in write_package(tmp_path, kind, "spread")}
    assert [name for name, text in texts.items() if "$" in text.replace(r".csv$", "")] == []
    for name in (f"{kind}.py", "test_spread.py"):
        assert "# CHANGE: " in texts[name]


def test_the_command_says_what_was_written_and_what_comes_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    said = call("plugins", "new", "my spread", "--kind", "objective", "--name", "spread")
    assert said.exit_code == 0, said.stderr
    assert said.stdout.splitlines() == sorted(str(path) for path in Path("my spread").rglob("*") if path.is_file())
    assert said.stderr.splitlines() == [
        "next:",
        "  pip install -e './my spread[test]'",
        "  python -m pytest 'my spread'",
        "  ssl-dc train --objective spread --budget 0.3",
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_the_command_that_comes_last_has_options_that_there_are(
    kind: str, tmp_path: Path, install_package: Install
) -> None:
    package = tmp_path / "package"
    write_package(package, kind, f"new-{kind}")
    install_package(package)
    program, *words = shlex.split(next_commands(package, kind, f"new-{kind}")[-1])
    assert program == "ssl-dc"
    answered = call(*words, "--help")
    assert answered.exit_code == 0, answered.output


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("", "a name is a letter"),
        ("1st", "a name is a letter"),
        ("a b", "a name is a letter"),
        ("acme:spread", "a name is a letter"),
        ("../spread", "a name is a letter"),
        ("spread_", "the last one a letter or a digit"),
        ("größe", "a name is a letter"),
        ("a²", "a name is a letter"),
        ("class", "class is a keyword of Python"),
        ("none", "None is a keyword of Python"),
        ("vicreg", "name 'vicreg' is taken: there is the objective 'vicreg' of ssl-dc "),
    ],
)
def test_a_name_that_cannot_work_is_refused(name: str, said: str, tmp_path: Path) -> None:
    answered = call("plugins", "new", tmp_path / "new", "--kind", "objective", "--name", name)
    assert answered.exit_code == 2
    assert answered.stdout == ""
    assert answered.stderr.startswith("ssl-dc: name ")
    assert said in answered.stderr
    assert answered.stderr.count("\n") == 1
    assert not (tmp_path / "new").exists()


def test_a_name_is_taken_for_its_kind_only(tmp_path: Path) -> None:
    assert write_package(tmp_path / "new", "gating", "vicreg")
    for kind, name in (("command", "train"), ("protocol", "knn"), ("data", "digits")):
        with pytest.raises(PluginError, match=f"name '{name}' is taken"):
            write_package(tmp_path / kind, kind, name)


def test_a_package_that_is_installed_can_be_written_anew_but_not_another_of_its_name(
    tmp_path: Path, install_package: Install
) -> None:
    write_package(tmp_path / "first", "norm", "new-one")
    install_package(tmp_path / "first")
    assert write_package(tmp_path / "again", "norm", "new-one")
    with pytest.raises(PluginError, match="would be ssl-dc-new-one, which is installed and brings the norm policy"):
        write_package(tmp_path / "other", "gating", "new-one")
    assert not (tmp_path / "other").exists()


def test_an_empty_folder_is_taken_and_a_full_one_or_a_file_is_not(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert call("plugins", "new", tmp_path / "empty", "--kind", "views", "--name", "spread").exit_code == 0
    (tmp_path / "file").write_text("kept")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "kept").write_text("kept")
    for name, said in (("file", "is a file; name a folder"), ("full", "is not empty; name a folder")):
        answered = call("plugins", "new", tmp_path / name, "--kind", "views", "--name", "spread")
        assert answered.exit_code == 2
        assert answered.stderr == f"ssl-dc: {tmp_path / name} {said} that is new or empty\n"
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["kept"]


def test_a_folder_that_cannot_be_made_is_one_message(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be written to: Not a directory"):
        write_package(tmp_path / "file" / "new", "views", "spread")


def test_an_unknown_kind_is_an_error_that_lists_the_kinds(tmp_path: Path) -> None:
    with pytest.raises(PluginError, match=r"unknown kind of part 'loss'; there are: objective, .*watcher"):
        write_package(tmp_path / "new", "loss", "spread")
    assert call("plugins", "new", tmp_path / "new", "--kind", "loss", "--name", "spread").exit_code == 2


def test_an_error_of_the_new_command_is_one_message(tmp_path: Path, install_package: Install) -> None:
    package = tmp_path / "package"
    write_package(package, "command", "new-command")
    install_package(package)
    said = call("new-command", tmp_path / "nowhere")
    assert said.exit_code in (1, 2)
    assert said.stderr.startswith("ssl-dc: ")
    assert said.stderr.count("\n") == 1


@pytest.mark.long
def test_the_templates_are_in_the_wheel(tmp_path: Path) -> None:
    build = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "-q",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        str(tmp_path),
        str(REPOSITORY),
    ]
    made = subprocess.run(build, capture_output=True, text=True, env={**os.environ, "PIP_NO_INDEX": "1"}, timeout=300)
    if "hatchling" in made.stderr:
        pytest.skip("hatchling, which wheels are built with, is not installed")
    assert made.returncode == 0, made.stderr
    (wheel,) = tmp_path.glob("*.whl")
    kept = {name for name in zipfile.ZipFile(wheel).namelist() if name.startswith("ssl_dc/scaffold/templates/")}
    assert kept == {str(path.relative_to(REPOSITORY)) for path in TEMPLATES.rglob("*") if path.is_file()}
