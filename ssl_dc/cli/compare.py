"""``ssl-dc compare``."""

from __future__ import annotations

from pathlib import Path

import click

from ssl_dc.cli.launched import progress_from_the_start
from ssl_dc.cli.messages import readable_errors
from ssl_dc.cli.options import data_root_option, json_option, print_json, runs_argument, seconds_option, time_option
from ssl_dc.printable import printable


@click.command("compare", short_help="Put runs beside each other: accuracy, cost, settings that differ.")
@readable_errors
@runs_argument
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Where the picture, accuracy against cost, is written: .png, .pdf or .svg.",
)
@time_option
@seconds_option
@data_root_option
@json_option
def command(
    runs: tuple[Path, ...], output: Path | None, time: bool, seconds: float, data_root: Path | None, as_json: bool
) -> None:
    """Put RUNs beside each other: what each route reaches and costs, and the settings that differ.

    Accuracy and cost are those that the training reports at its end. Only --time loads the networks.
    """
    progress = progress_from_the_start()
    from ssl_dc.cli.tables import print_report
    from ssl_dc.evaluation import drawing
    from ssl_dc.reporting.comparison import compare

    if output is not None:
        drawing.check_drawable(output)
    found = compare(runs, time=time, seconds=seconds, data_root=data_root, watchers=[progress], progress=False)
    if output is not None:
        drawing.save(found.draw(), output)
    if as_json:
        print_json({**found.as_json(), **({} if output is None else {"output": str(output)})})
        return
    print_report(found)
    if output is not None:
        click.echo(f"picture: {printable(str(output))}")
