"""``ssl-dc plugins``."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any

import click

from ssl_dc.cli.messages import readable_errors
from ssl_dc.cli.options import json_option, print_json
from ssl_dc.errors import PluginError, RunError
from ssl_dc.plugins.kinds import KINDS
from ssl_dc.plugins.registry import Broken, Registered, did_you_mean, registry
from ssl_dc.printable import printable

READY = "ready"


@click.group("plugins", short_help="List, show and check the parts of runs; start a plugin of your own.")
def command() -> None:
    """List, show and check the parts that runs are composed of, built in or from plugins. Start a plugin of your own."""


@command.command("list")
@click.option("--kind", type=click.Choice(list(KINDS)), help="Only parts of this kind.")
@readable_errors
@json_option
def list_parts(kind: str | None, as_json: bool) -> None:
    """List every part with its kind, distribution, version and state, and every plugin that was left out, with the reason.

    The name of a part is what you write in a config or on the command line.
    """
    parts = [
        {
            "kind": registered.kind,
            "name": registry().written(registered),
            "distribution": registered.distribution,
            "version": registered.version,
            "state": _state(registered),
            "summary": registered.part.summary,
        }
        for registered in registry().all()
        if kind in (None, registered.kind)
    ]
    left_out = [
        {"plugin": broken.plugin, "distribution": broken.distribution, "version": broken.version, "reason": broken.reason}
        for broken in registry().broken
    ]
    if as_json:
        print_json({"parts": parts, "left_out": left_out})
        return
    from ssl_dc.cli.tables import print_columns

    print_columns("parts", ["kind", "name", "distribution", "version", "state", "summary"], parts)
    if left_out:
        print_columns("left out", ["plugin", "distribution", "version", "reason"], left_out)


@command.command("show")
@click.argument("name")
@click.option("--kind", type=click.Choice(list(KINDS)), help="Only a part of this kind.")
@readable_errors
@json_option
def show(name: str, kind: str | None, as_json: bool) -> None:
    """Show the options of each part of that NAME: default, range, meaning. A run sets them by --KIND.OPTION VALUE.

    A part that has none is said to have none.
    """
    parts = [part for each in ([kind] if kind else KINDS) for part in registry().meant(each, name)]
    if not parts and kind:
        registry().find(kind, name)  # raises, and says which there are
    if not parts:
        known = sorted({written for each in KINDS for written in registry().names(each)})
        hint = did_you_mean(name, known)
        raise PluginError(f"unknown part {name!r}; there are: {', '.join(known)}.{hint}{registry().left_out}")
    shown = [_described(part) for part in parts]
    if as_json:
        print_json(shown)
        return
    from ssl_dc.cli.tables import print_columns

    for part in shown:
        title = (
            f"{KINDS[part['kind']].label} {part['name']}, of {part['distribution']} {part['version']}: {part['summary']}"
        )
        if part["options"]:
            print_columns(title, ["option", "default", "allowed", "meaning"], part["options"])
        else:
            click.echo(printable(f"{title}\nIt has no options."))


@command.command("hooks")
@readable_errors
def hooks() -> None:
    """Print the reference of all hooks as Markdown: what parts are called with, must return and may raise."""
    from ssl_dc.plugins.reference import hook_reference

    click.echo(hook_reference(), nl=False)


@command.command("new")
@click.argument("directory", type=click.Path(path_type=Path))
@click.option("--kind", type=click.Choice(list(KINDS)), required=True, help="The kind of part that it brings.")
@click.option("--name", required=True, help="The part's name. A part spread comes in a package ssl-dc-spread.")
@readable_errors
def new(directory: Path, kind: str, name: str) -> None:
    """Write a package that brings one small part into DIRECTORY. It installs, passes its own tests, and works at once.

    DIRECTORY must be new or empty. Comments that begin with CHANGE say what you are to write.
    """
    from ssl_dc.scaffold import next_commands, write_package

    for path in write_package(directory, kind, name):
        click.echo(printable(str(path)))
    click.echo("next:", err=True)
    for line in next_commands(directory, kind, name):
        click.echo(f"  {printable(line)}", err=True)


@command.command("check")
@click.argument("package")
@readable_errors
@json_option
def check(package: str, as_json: bool) -> None:
    """Run the conformance kit on every part of PACKAGE: an installed distribution, or the FILE of --plugin FILE.

    The exit status is 1 if a check fails.
    """
    parts = [registered for registered in registry().all() if _is_of(registered, package)]
    if not parts:
        reasons = [each.reason for each in registry().broken if each.plugin == package or _is_of(each, package)]
        if reasons:
            raise PluginError(f"no part comes from {package!r}: its plugin was left out: {'; '.join(reasons)}")
        packages = sorted({registered.distribution for registered in registry().all()})
        raise PluginError(
            f"no part comes from {package!r}; packages that bring parts: {', '.join(packages)}."
            f"{_package_meant(package, packages)}{registry().left_out}"
        )
    from ssl_dc.testing import run_checks

    rows = [
        {"part": f"{each.kind} {each.part.name}", "check": outcome.name, "state": outcome.state, "message": outcome.message}
        for each in parts
        for outcome in run_checks(each)
    ]
    failed = [row for row in rows if row["state"] == "failed"]
    if as_json:
        print_json(rows)
    else:
        from ssl_dc.cli.tables import print_columns

        print_columns(f"conformance of {package}", ["part", "check", "state", "message"], rows)
    if failed:
        raise RunError(f"{package}: {len(failed)} of {len(rows)} checks failed")


def _package_meant(name: str, packages: list[str]) -> str:
    """Which package was probably meant by a name that none has: that of a part of the name, or the nearest name."""
    bringing = sorted({each.distribution for kind in KINDS for each in registry().meant(kind, name)})
    if bringing:
        return f" {name!r} is a part of {' and '.join(bringing)}: ssl-dc plugins check {bringing[0]}"
    of_parts = {written: kind for kind in KINDS for written in registry().names(kind)}
    near = difflib.get_close_matches(name, [*packages, *of_parts], n=1)
    if near and near[0] in of_parts:
        package = registry().find(of_parts[near[0]], near[0]).distribution
        return f" Did you mean {package!r}, which brings {near[0]!r}?"
    return f" Did you mean {near[0]!r}?" if near else ""


def _is_of(brought: Registered | Broken, package: str) -> bool:
    return brought.distribution == package or (
        brought.distribution.endswith(".py") and Path(brought.distribution).name == Path(package).name
    )


def _state(registered: Registered) -> str:
    """Whether a part can be used, as far as its options tell: the part itself is not imported."""
    if registered.part.options is None:
        return READY
    from pydantic import ValidationError

    try:
        registered.options({})
    except PluginError as error:
        return str(error)
    except ValidationError:  # an option has no default, so that users must set it
        pass
    return READY


def _described(registered: Registered) -> dict[str, Any]:
    return {
        "kind": registered.kind,
        "name": registry().written(registered),
        "distribution": registered.distribution,
        "version": registered.version,
        "summary": registered.part.summary,
        "options": [] if registered.part.options is None else _options(registered),
    }


def _options(registered: Registered) -> list[dict[str, Any]]:
    from ssl_dc.config.messages import allowed_values

    section = f"{registered.kind}." if KINDS[registered.kind].section else ""
    return [
        {
            "option": f"{section}{option}",
            "default": "needed" if field.is_required() else field.get_default(),
            "allowed": allowed_values(field),
            "meaning": field.description or "",
        }
        for option, field in registered.options_model().model_fields.items()
        if option != "name"
    ]
