"""``ssl-dc plugins``."""

from __future__ import annotations

import difflib
from typing import Any

import click

from ssl_dc.cli.messages import readable_errors
from ssl_dc.cli.options import json_option, print_json
from ssl_dc.errors import PluginError
from ssl_dc.parts import KINDS
from ssl_dc.plugins import LABEL, registry


@click.group("plugins", short_help="List, show, check and write the parts that runs are composed of.")
def command() -> None:
    """List the parts that runs can be composed of, built-in and from installed plugins, and their options."""


@command.command("list")
@readable_errors
@json_option
def list_parts(as_json: bool) -> None:
    """List every part with its kind, distribution and version, and what was left out and why. Imports no part."""
    parts = [
        {
            "kind": part.kind,
            "name": part.part.name,
            "distribution": part.distribution,
            "version": part.version,
            "summary": part.part.summary,
        }
        for part in registry().all()
    ]
    left_out = [
        {"plugin": broken.plugin, "distribution": broken.distribution, "version": broken.version, "reason": broken.reason}
        for broken in registry().broken
    ]
    if as_json:
        print_json({"parts": parts, "left_out": left_out})
        return
    from ssl_dc.cli.tables import print_columns

    print_columns("parts", ["kind", "name", "distribution", "version", "summary"], parts)
    if left_out:
        print_columns("left out", ["plugin", "distribution", "version", "reason"], left_out)


@command.command("show")
@click.argument("name")
@click.option("--kind", type=click.Choice(KINDS), help="Needed where parts of different kinds have the same name.")
@readable_errors
@json_option
def show(name: str, kind: str | None, as_json: bool) -> None:
    """Show the options of the part NAME: type, range, default, meaning. Set them by --set KIND.OPTION=VALUE."""
    kinds = [kind] if kind else [each for each in KINDS if name in registry().names(each)]
    if not kinds:
        known = sorted({part.part.name for part in registry().all()})
        near = difflib.get_close_matches(name, known, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise PluginError(f"unknown part {name!r}; there are: {', '.join(known)}.{hint}")
    shown = [_described(each, name) for each in kinds]
    if as_json:
        print_json(shown)
        return
    from ssl_dc.cli.tables import print_columns

    for part in shown:
        title = f"{LABEL[part['kind']]} {name}: {part['summary']}"
        print_columns(title, ["option", "default", "allowed", "meaning"], part["options"])


def _described(kind: str, name: str) -> dict[str, Any]:
    from ssl_dc.config.messages import allowed_values

    registered = registry().find(kind, name)
    model = registered.options_model()
    options = [
        {
            "option": f"{kind}.{option}",
            "default": field.get_default(),
            "allowed": allowed_values(field),
            "meaning": field.description or "",
        }
        for option, field in model.model_fields.items()
        if option != "name"
    ]
    return {"kind": kind, "name": name, "summary": registered.part.summary, "options": options}
