"""What a public project has beside its code says the same as the code."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
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


def test_the_hosted_ci_runs_the_ci_script_on_the_oldest_python_too(project: dict[str, Any]) -> None:
    job = yaml(".github/workflows/ci.yml")["jobs"]["run"]
    assert job["steps"][-1] == {"run": ".ci/run"}
    assert job["strategy"]["matrix"]["python"][0] == project["requires-python"].removeprefix(">=")
