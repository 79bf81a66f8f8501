"""``ssl-dc config``."""

from __future__ import annotations

from pathlib import Path

import click

from ssl_dc.cli.messages import readable_errors
from ssl_dc.cli.options import ConfigCommand, config_options, json_option, print_json
from ssl_dc.config import Layer, file_layer, resolve
from ssl_dc.printable import printable


@click.group("config", short_help="Show or check a complete config; print the schema of all configs.")
def command() -> None:
    """Show or check a complete config, or print the schema of all configs."""


@command.command("show", cls=ConfigCommand)
@readable_errors
@config_options
@json_option
def show(layers: list[Layer], as_json: bool) -> None:
    """Print, as YAML, the complete config that train would run with these options, and where each setting comes from.

    With --data-root, the pictures there are looked at: the recipe is fitted to them and to this machine.
    """
    resolved = resolve(layers)
    if resolved.config.data.fitted or resolved.recipe is not None:
        from ssl_dc.fitted_recipe import fit

        resolved = fit(layers).resolved
    if as_json:
        print_json(resolved.config.model_dump(mode="json"))
        return
    from ssl_dc.config.yaml_text import annotated_yaml

    click.echo(annotated_yaml(resolved), nl=False)


@command.command("validate")
@readable_errors
@click.argument("file", type=click.Path(path_type=Path))
def validate(file: Path) -> None:
    """Check a config FILE. If it cannot be run, print every error in it and exit with status 2."""
    resolve([file_layer(file)])
    click.echo(f"{printable(str(file))}: valid")


@command.command("schema")
@readable_errors
def schema() -> None:
    """Print the JSON schema of a config with all installed parts, for editors.

    Editors with YAML support use it if the first line of a config is: # yaml-language-server: $schema=schema.json
    """
    from ssl_dc.config.json_schema import json_schema

    print_json(json_schema())
