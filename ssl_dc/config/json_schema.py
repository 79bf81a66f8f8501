"""The JSON schema of a config with all installed parts, for editors that check and complete."""

from __future__ import annotations

import json
import re
from typing import Any, get_args

from pydantic.json_schema import models_json_schema

from ssl_dc.config import RECIPE, Recipe
from ssl_dc.config.schema import RunConfig
from ssl_dc.errors import PluginError
from ssl_dc.plugins.kinds import KINDS, config_sections, default_part
from ssl_dc.plugins.registry import Registered, registry

REF = "#/$defs/{model}"


def json_schema() -> dict[str, Any]:
    """The schema (JSON Schema 2020-12) as plain values. Parts whose options cannot be loaded are left out."""
    own = RunConfig.model_json_schema(ref_template=REF)
    properties = own["properties"]
    definitions = own["$defs"]
    for kind in config_sections():
        choices = []
        for written, registered in _parts(kind):
            definitions[f"{kind}:{written}"] = _part_schema(kind, written, registered, definitions)
            choices.append({"$ref": REF.format(model=f"{kind}:{written}")})
        names = [written for written, _ in _parts(kind)]
        properties[kind] = {
            "description": properties[kind]["description"],
            "anyOf": [{"enum": names, "description": f"The {KINDS[kind].label}, with its defaults."}, *choices],
        }
    number = next(one for one in definitions["BudgetConfig"]["properties"]["target"]["anyOf"] if one["type"] == "number")
    section = properties["budget"]
    properties["budget"] = {
        "description": section["description"],
        "anyOf": [{**number, "description": "The target."}, section],
    }
    properties[RECIPE] = {
        "description": "Which recipe fills in what is not set: fitted to the pictures and the machine, or the fixed one.",
        "enum": list(get_args(Recipe)),
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "ssl-dc config",
        "description": "What ssl-dc train --config reads. Made by ssl-dc config schema.",
        "type": "object",
        "additionalProperties": False,
        "properties": properties,
        "$defs": {name: definitions[name] for name in sorted(_reachable(properties, definitions))},
    }


def _reachable(schema: Any, definitions: dict[str, Any]) -> set[str]:
    """The definitions that a schema refers to, directly or through others."""
    found: set[str] = set()
    left = _references(schema)
    while left:
        found |= left
        left = {name for known in left for name in _references(definitions[known])} - found
    return found


def _references(schema: Any) -> set[str]:
    return set(re.findall(r'"#/\$defs/([^"]+)"', json.dumps(schema)))


def _parts(kind: str) -> list[tuple[str, Registered]]:
    """The parts of a kind whose options can be loaded, each with what users write for it."""
    found = []
    for registered in registry().all():
        if registered.kind == kind:
            try:
                registered.options_model()
            except PluginError:
                continue
            found.append((registry().written(registered), registered))
    return sorted(found, key=lambda pair: pair[0])


def _part_schema(kind: str, written: str, registered: Registered, definitions: dict[str, Any]) -> dict[str, Any]:
    """The schema of a section that names a part. The definitions it refers to are added to ``definitions``."""
    model = registered.options_model()
    schemas, shared = models_json_schema([(model, "validation")], ref_template=f"#/$defs/{kind}:{written}:{{model}}")
    inner = dict(shared.get("$defs", {}))
    schema: dict[str, Any] = inner.pop(schemas[model, "validation"]["$ref"].rpartition(":")[2])
    definitions.update({f"{kind}:{written}:{name}": definition for name, definition in inner.items()})
    schema["properties"]["name"] = {"const": written, "description": registered.part.summary}
    required = {*schema.get("required", ()), "name"}
    if written == default_part(kind):
        required.remove("name")
    return {**schema, "title": written, "required": sorted(required)}
