"""``ssl-dc reproduce``."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import click

from ssl_dc.cli.messages import readable_errors
from ssl_dc.cli.options import json_option, print_json
from ssl_dc.reproduction.plan import Scale, Scope
from ssl_dc.reproduction.requests import NAMES, request_for
from ssl_dc.reproduction.systems import DATASET


def _numbers(ctx: click.Context, param: click.Parameter, value: str) -> list[float]:  # noqa: ARG001  # click's signature
    try:
        return [float(number) for number in value.split(",")]
    except ValueError as error:
        raise click.BadParameter("write numbers separated by commas, for example 0.1,0.3,0.5") from error


@click.command("reproduce", short_help="Reproduce a table or figure of the paper.")
@readable_errors
@click.argument("name", type=click.Choice(sorted(NAMES)))
@click.option(
    "--scale", type=click.Choice(["paper", "small"]), default="small", show_default=True, help="Size of the runs."
)
@click.option("--dataset", default=DATASET, show_default=True, help="Data set, by the paper's name for it.")
@click.option("--data-root", type=click.Path(path_type=Path), help="Folder with its images or parquet files.")
@click.option("--to", help="Target data set of table2.")
@click.option("--to-root", type=click.Path(path_type=Path), help="Folder with the target's images or parquet files.")
@click.option(
    "--budgets", default="0.1,0.3,0.5", show_default=True, callback=_numbers, help="Budgets, as shares of the dense cost."
)
@click.option(
    "--seeds",
    type=click.IntRange(min=1),
    default=2,
    show_default=True,
    help="Runs of each system. A figure shows seed 0 only.",
)
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    default=Path("reproduction"),
    show_default=True,
    help="Folder for runs, tables and figures.",
)
@json_option
@click.option("--dry-run", is_flag=True, help="Only list the runs, which of them are done, and how long the others take.")
def command(
    name: str,
    scale: Scale,
    dataset: str,
    data_root: Path | None,
    to: str | None,
    to_root: Path | None,
    budgets: list[float],
    seeds: int,
    output: Path,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Reproduce a table or figure of the paper. Train the runs that are missing, evaluate all, and write the result.

    You can stop it at any point and call it again. A table has the paper's numbers beside ours. It is shown on a terminal,
    printed as Markdown to another program, and written beside the runs as Markdown, CSV and HTML. A figure is written
    beside its runs as PNG, with a map of the gates by class and channel for each gated run. The paths are printed.
    """
    request = request_for(name, Scope(scale, dataset, data_root, budgets, range(seeds)), to, to_root)
    runs = list(request.runs())
    from ssl_dc.cli.tables import print_report
    from ssl_dc.progress.progress import Progress
    from ssl_dc.reproduction.estimate import estimate
    from ssl_dc.reproduction.products import product_of
    from ssl_dc.reproduction.runner import Store

    store = Store(output)
    product = product_of(request, store, shlex.join(["ssl-dc", *sys.argv[1:]]))
    if dry_run:
        listed = [(run, product.has(run)) for run in runs]
        planned = estimate(dataset, listed, store.images_per_second)
        print_json(planned.as_json()) if as_json else print_report(planned)
        return
    product.check()
    click.echo(request.title, err=True)
    for number, run in enumerate(runs, start=1):
        say = lambda text, number=number: click.echo(f"[{number}/{len(runs)}] {text}", err=True)  # noqa: E731
        product.add(run, [Progress()], say)
    written = product.write()
    if as_json:
        print_json(written.as_json())
    elif sys.stdout.isatty():
        print_report(written)
    else:
        click.echo(written.text, nl=False)
