"""The schema that editors check configs by agrees with what the program takes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from jsonschema import Draft202012Validator
from ruamel.yaml import YAML

from ssl_dc.cli import main
from ssl_dc.config import override_layer, resolve
from ssl_dc.errors import ConfigError

CONFIGS = Path(__file__).parent.parent.parent / "configs"


@pytest.fixture(scope="module")
def schema() -> dict[str, Any]:
    """The schema of the built-in parts, as the command prints it."""
    printed: dict[str, Any] = json.loads(CliRunner().invoke(main, ["--no-plugins", "config", "schema"]).stdout)
    Draft202012Validator.check_schema(printed)
    return printed


def test_the_schema_beside_the_configs_is_the_printed_one(schema: dict[str, Any]) -> None:
    kept = json.loads((CONFIGS / "schema.json").read_text())
    assert kept == schema, "make it anew: ssl-dc --no-plugins config schema > configs/schema.json"


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_config_is_valid_by_it(path: Path, schema: dict[str, Any]) -> None:
    Draft202012Validator(schema).validate(YAML(typ="safe").load(path.read_text()))


def test_a_complete_config_is_valid_by_it(schema: dict[str, Any]) -> None:
    Draft202012Validator(schema).validate(resolve().config.model_dump(mode="json"))


GOOD = [
    {},
    {"objective": "barlow_twins"},
    {"objective": {"invariance": 3}},
    {"data": {"name": "folder", "root": "pictures"}, "training": {"epochs": 3}},
    {"gating": "none", "routes": ["dense", "dense"], "budget": {"target": None}},
]
BAD = [
    {"objektive": "vicreg"},
    {"objective": "vicregg"},
    {"objective": {"temperature": 3}},
    {"objective": {"name": "barlow_twins", "invariance": 3}},
    {"training": {"epochs": 0}},
    {"budget": {"target": 1.5}},
    {"routes": ["gated"]},
    {"backbone": {"stem": "round"}},
]


@pytest.mark.parametrize(("config", "good"), [*((each, True) for each in GOOD), *((each, False) for each in BAD)], ids=str)
def test_it_takes_what_the_program_takes(config: dict[str, Any], good: bool, schema: dict[str, Any]) -> None:
    assert Draft202012Validator(schema).is_valid(config) == good
    layer = override_layer(
        f"{section}.{key}={json.dumps(value)}" if isinstance(values, dict) else f"{section}={json.dumps(values)}"
        for section, values in config.items()
        for key, value in (values.items() if isinstance(values, dict) else [("", None)])
    )
    if good:
        resolve([layer])
    else:
        with pytest.raises(ConfigError):
            resolve([layer])
