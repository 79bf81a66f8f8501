"""``ssl-dc cost``."""

from __future__ import annotations

from pathlib import Path

import click

from ssl_dc.cli.messages import readable_errors
from ssl_dc.cli.options import ConfigCommand, config_options, device_option, json_option, print_json
from ssl_dc.config import Layer, resolve
from ssl_dc.config.layers import merged
from ssl_dc.errors import ConfigError
from ssl_dc.printable import printable


@click.command("cost", cls=ConfigCommand, short_help="Show what a network costs, layer by layer, dense and gated.")
@readable_errors
@click.argument("run", required=False, type=click.Path(path_type=Path))
@config_options
@device_option
@json_option
def command(run: Path | None, layers: list[Layer], device: str | None, as_json: bool) -> None:
    """Show what a network costs, in MACs for one image: layer by layer, dense and gated.

    Give a RUN folder to see what its held-out images pay on the gated route: the mean over them. If the images are gone,
    the command shows the least that the gated route can cost, and what images paid when the training ended. Without a RUN
    it shows the untrained network that the options name: its dense cost, and the least that the gated route can cost.
    """
    said = merged(layers).values
    if run is not None and said.keys() - {"data.root", "budget.target"}:
        raise ConfigError(
            "cost takes a run folder (and --data-root if its data has moved, --budget for another budget) or the options of"
            " a network, not both"
        )
    if run is None and device is not None:
        raise ConfigError(f"--device {device}: cost computes features only for the images of a run; name its folder")
    from ssl_dc.cli.tables import print_report
    from ssl_dc.evaluation.cost import cost_of_network, cost_of_run

    if run is not None:
        table = cost_of_run(run, device or "auto", data_root=said.get("data.root"), budget=said.get("budget.target"))
    else:
        table = cost_of_network(resolve(layers, unnamed_data_recipe=False).config)
    if table.not_measured:
        click.echo(printable(f"{run}: {table.not_measured}"), err=True)
    if as_json:
        print_json(table.as_json())
    else:
        print_report(table)
