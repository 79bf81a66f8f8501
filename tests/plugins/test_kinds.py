"""A kind of part is a row of one table: what a new row brings with it, and what the table promises of every row."""

from __future__ import annotations

import ast
import inspect
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from ssl_dc.config import RunConfig, schema
from ssl_dc.plugins.discovery import BUILT_IN
from ssl_dc.plugins.kinds import KINDS, Kind, config_sections, default_part
from ssl_dc.plugins.options import PartOptions
from ssl_dc.plugins.parts import import_string
from ssl_dc.plugins.registry import registry


def test_there_is_a_built_in_part_of_every_kind_but_one() -> None:
    """A watcher cannot be built in: it would watch every training."""
    assert {registered.kind for registered in registry().all() if registered.distribution == BUILT_IN} == {*KINDS} - {
        "watcher"
    }


@pytest.mark.parametrize("kind", [kind for kind in KINDS if KINDS[kind].default is not None])
def test_the_default_part_of_a_kind_is_built_in(kind: str) -> None:
    assert registry().find(kind, default_part(kind)).distribution == BUILT_IN


def test_every_section_of_a_config_has_a_default_part() -> None:
    assert [kind for kind in config_sections() if KINDS[kind].default is None] == []
    with pytest.raises(ValueError, match="no command is used unless it is named"):
        default_part("command")


@pytest.mark.parametrize("kind", KINDS.values(), ids=str)
def test_the_classes_that_a_kind_names_are_there(kind: Kind) -> None:
    assert isinstance(import_string(kind.base), type)
    assert kind.options is None or issubclass(import_string(kind.options), PartOptions)
    assert all(isinstance(import_string(string), type) for string in kind.also)


def test_the_page_on_plugins_has_a_row_for_every_kind() -> None:
    page = (Path(__file__).parents[2] / "docs" / "plugins.md").read_text()
    rows = re.findall(r"^\| `(ssl_dc_\w+)` \| .+ \| `(ssl-dc .+)` \|$", page, re.MULTILINE)
    assert rows == [(kind.hook, kind.use) for kind in KINDS.values()]


def test_type_checkers_see_the_sections_that_there_are() -> None:
    (block,) = (node for node in ast.parse(inspect.getsource(schema)).body if isinstance(node, ast.If))
    (sections,) = (node for node in block.body if isinstance(node, ast.ClassDef))
    seen = {
        field.target.id: ast.unparse(field.annotation)
        for field in sections.body
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
    }
    assert seen == {kind: str(KINDS[kind].options).partition(":")[2] for kind in config_sections()}
    assert list(RunConfig.model_fields)[: len(seen)] == list(seen)


NEW_ROW = """
import contextlib, io, json, sys

from ssl_dc.plugins.kinds import KINDS, Kind

KINDS["sampler"] = Kind(
    name="sampler",
    label="sampler",
    brings="Samplers: which images a step sees",
    hook="ssl_dc_samplers",
    contract="Each target is a :class:`torch.utils.data.Sampler`, built as ``Class(options, images)``.",
    base="torch.utils.data:Sampler",
    section="Which images a step sees.",
    default="uniform",
    use="ssl-dc train --sampler NAME",
)

from ssl_dc.cli import main

outputs = {}
for words in json.loads(sys.argv[1]):
    with contextlib.redirect_stdout(io.StringIO()) as output:
        main([*words.split(), "--plugin", sys.argv[2]], standalone_mode=False)
    outputs[words] = output.getvalue()
print(json.dumps(outputs))
"""
"""The command line with one more row: runs commands, and prints what each wrote."""

COMMANDS = (
    "plugins list --kind sampler --json",
    "plugins show balanced --json",
    "config show --json",
    "config show --json --sampler balanced --sampler.share 0.25",
    "config schema",
    "plugins hooks",
    "train --help",
    "plugins check samplers.py --json",
)

SAMPLERS = '''
import pydantic

import ssl_dc


@ssl_dc.hookimpl
def ssl_dc_samplers():
    """Two samplers."""
    return [
        ssl_dc.Part(name=name, target="torch.utils.data:Sampler", options=f"{__name__}:{name.title()}", summary="Draws.")
        for name in ("uniform", "balanced")
    ]


class Uniform(ssl_dc.PartOptions):
    """Options of the sampler uniform."""

    name: str = "uniform"


class Balanced(ssl_dc.PartOptions):
    """Options of the sampler balanced."""

    name: str = "balanced"
    share: float = pydantic.Field(0.5, description="Share of rare classes.")
'''


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What each command writes where the table has a row more, and a plugin brings parts of the new kind."""
    plugin = tmp_path_factory.mktemp("samplers") / "samplers.py"
    plugin.write_text(SAMPLERS)
    done = subprocess.run(
        [sys.executable, "-c", NEW_ROW, json.dumps(COMMANDS), str(plugin)], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    outputs: dict[str, str] = json.loads(done.stdout)
    return outputs


def test_parts_of_a_new_kind_are_listed_and_shown(written: dict[str, str]) -> None:
    listed = json.loads(written["plugins list --kind sampler --json"])
    assert [(part["name"], part["state"]) for part in listed["parts"]] == [("balanced", "ready"), ("uniform", "ready")]
    assert listed["left_out"] == []
    (shown,) = json.loads(written["plugins show balanced --json"])
    assert [option["option"] for option in shown["options"]] == ["sampler.share"]


def test_a_config_has_a_section_for_a_new_kind(written: dict[str, str]) -> None:
    assert json.loads(written["config show --json"])["sampler"] == {"name": "uniform"}
    chosen = json.loads(written["config show --json --sampler balanced --sampler.share 0.25"])
    assert chosen["sampler"] == {"name": "balanced", "share": 0.25}
    assert "sampler:balanced" in json.loads(written["config schema"])["$defs"]


def test_the_page_of_the_hooks_and_the_help_tell_of_a_new_kind(written: dict[str, str]) -> None:
    assert "## `ssl_dc_samplers() -> list[Part]`\n\nSamplers: which images a step sees.\n" in written["plugins hooks"]
    assert "--sampler NAME" in written["train --help"]


def test_the_conformance_kit_checks_the_options_of_a_new_kind(written: dict[str, str]) -> None:
    rows = json.loads(written["plugins check samplers.py --json"])
    assert {row["state"] for row in rows if row["part"] == "sampler balanced"} == {"passed", "does not apply"}
    assert "options_survive_a_config_file" in {row["check"] for row in rows}
