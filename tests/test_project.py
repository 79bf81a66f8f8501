"""What a public project has beside its code says the same as the code."""

from __future__ import annotations

import re
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest
from hatchling.builders.sdist import SdistBuilder
from hatchling.builders.wheel import WheelBuilder
from ruamel.yaml import YAML

from ssl_dc import __version__

if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = None

REPOSITORY = Path(__file__).parent.parent


def yaml(name: str) -> Any:
    return YAML(typ="safe").load(REPOSITORY / name)


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    if tomllib is None:
        pytest.skip("tomllib comes with Python 3.11")
    return tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]


def test_the_citation_is_of_this_version_and_names_the_paper(project: dict[str, Any]) -> None:
    citation = yaml("CITATION.cff")
    assert citation["cff-version"] == "1.2.0"
    assert str(citation["version"]) == project["version"] == __version__
    assert citation["license"] == project["license"]
    assert citation["repository-code"] == project["urls"]["Homepage"]
    assert {"message", "title", "authors"} <= set(citation)
    (paper,) = citation["references"]
    assert "Unifying Synergies between Self-supervised Learning" in paper["title"]
    assert paper["year"] == 2023
    assert paper["authors"][0]["family-names"] == "Krishna"


def test_the_licence_is_there_as_declared(project: dict[str, Any]) -> None:
    (name,) = project["license-files"]
    assert (REPOSITORY / name).read_text().startswith(f"{project['license']} License\n")


def test_every_check_before_a_commit_is_one_of_the_ci_scripts() -> None:
    (local,) = yaml(".pre-commit-config.yaml")["repos"]
    script = (REPOSITORY / ".ci" / "run").read_text()
    assert [hook["id"] for hook in local["hooks"]] == ["ruff-format", "ruff-check", "mypy"]
    for hook in local["hooks"]:
        assert f"\n{hook['entry']}" in script


def test_the_hosted_ci_runs_the_ci_script_on_every_python_that_is_supported(project: dict[str, Any]) -> None:
    job = yaml(".github/workflows/ci.yml")["jobs"]["run"]
    assert job["steps"][-1] == {"run": ".ci/run"}
    pythons = job["strategy"]["matrix"]["python"]
    assert pythons[0] == project["requires-python"].removeprefix(">=")
    assert pythons == [name.rpartition(" ")[2] for name in project["classifiers"] if ":: Python :: 3." in name]


def sources() -> set[str]:
    """The files of the package, as git has them."""
    files = [path for path in (REPOSITORY / "ssl_dc").rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    return {str(path.relative_to(REPOSITORY)) for path in files}


def test_the_wheel_has_every_file_of_the_package_and_nothing_else(tmp_path: Path) -> None:
    (wheel,) = WheelBuilder(str(REPOSITORY)).build(directory=str(tmp_path), versions=["standard"])
    names = set(zipfile.ZipFile(wheel).namelist())
    info = {name for name in names if ".dist-info/" in name}
    assert names - info == sources()
    assert {"ssl_dc/py.typed", "ssl_dc/compiled/kernel.c", "ssl_dc/views/kernel.c"} <= names
    assert any(name.startswith("ssl_dc/scaffold/templates/") for name in names)
    assert {Path(name).name for name in info} >= {"METADATA", "entry_points.txt", "LICENSE"}


def test_the_source_distribution_has_what_builds_tests_and_documents_it(tmp_path: Path) -> None:
    (archive,) = SdistBuilder(str(REPOSITORY)).build(directory=str(tmp_path), versions=["standard"])
    with tarfile.open(archive) as tar:
        names = {name.partition("/")[2] for name in tar.getnames()}
    assert sources() <= names
    assert {"pyproject.toml", "README.md", "CHANGELOG.md", "LICENSE", "CITATION.cff", "Dockerfile", ".ci/run"} <= names
    assert {"docs/conf.py", "docs/index.md", "tests/conftest.py", "examples/dual_training.py"} <= names


def test_the_image_has_extras_that_there_are() -> None:
    extras = re.search(r"/src\[([\w,]+)\]", (REPOSITORY / "Dockerfile").read_text())
    assert extras is not None
    known = re.findall(r"^(\w+) = \[", (REPOSITORY / "pyproject.toml").read_text(), re.MULTILINE)
    assert set(extras[1].split(",")) <= set(known)
