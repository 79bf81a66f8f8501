"""``ssl-dc reproduce``."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from ssl_dc.cli.messages import readable_errors
from ssl_dc.cli.options import jobs_options, json_option, print_json
from ssl_dc.errors import RunError
from ssl_dc.reproduction.plan import PlannedRun, Scale, Scope
from ssl_dc.reproduction.requests import NAMES, Request, request_for
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
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    default=Path("reproduction"),
    show_default=True,
    help="Folder for runs, tables and figures.",
)
@jobs_options
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
    jobs: int | None,
    slurm: dict[str, Any] | None,
    as_json: bool,
) -> None:
    """Reproduce a table or figure of the paper. Train the runs that are missing, evaluate all, and write the result.

    You can stop it at any point and call it again. A table has the paper's numbers beside ours. It is shown on a terminal,
    printed as Markdown to another program, and written beside the runs as Markdown, CSV and HTML. A figure is written
    beside its runs as PNG, with a map of the gates by class and channel for each gated run. The paths are printed.

    With --jobs, several workers of this machine share the runs. With --slurm, jobs that share them are queued; once they
    are done, give the call again for the table.
    """
    request = request_for(name, Scope(scale, dataset, data_root, budgets, range(seeds)), to, to_root)
    runs = list(request.runs())
    from ssl_dc.cli.tables import print_report
    from ssl_dc.progress.progress import Progress
    from ssl_dc.reproduction.estimate import estimate
    from ssl_dc.reproduction.products import product_of
    from ssl_dc.reproduction.runner import Store

    store, call = Store(output), shlex.join(["ssl-dc", *sys.argv[1:]])
    product = product_of(request, store, call)
    if dry_run:
        listed = [(run, product.has(run)) for run in runs]
        planned = estimate(dataset, listed, store.images_per_second)
        print_json(planned.as_json()) if as_json else print_report(planned)
        return
    product.check()
    click.echo(request.title, err=True)
    if (jobs is not None or slurm is not None) and _shared(request, runs, output, call, jobs, slurm, as_json=as_json):
        return
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


def _shared(
    request: Request,
    runs: Sequence[PlannedRun],
    output: Path,
    call: str,
    jobs: int | None,
    slurm: dict[str, Any] | None,
    *,
    as_json: bool,
) -> bool:
    """Let workers do the runs that are left; whether they are only queued, which is then told.

    Raises:
        RunError: If some failed, or are in work elsewhere.
    """
    from ssl_dc.jobs.tasks import summed
    from ssl_dc.jobs.workers import on_this_machine, through_slurm
    from ssl_dc.reproduction.tasks import RunTask

    tasks = [RunTask(request, output, call, run) for run in runs]
    left = [task for task in tasks if not task.is_done()]
    if left and slurm is not None:
        queued = through_slurm(left, output, jobs or len(left), slurm)
        if as_json:
            print_json({"queued": queued, "left": [task.name for task in left]})
        else:
            click.echo(f"{len(left)} runs left, {len(queued)} jobs: {' '.join(queued)}", err=True)
        return True
    worked = summed(on_this_machine(left, output, jobs or 1) if left else [])
    if worked.failed:
        name, text = next(iter(worked.failed.items()))
        raise RunError(f"{len(worked.failed)} of {len(runs)} runs failed; {name}: {text}")
    if others := [task.name for task in tasks if not task.is_done()]:
        raise RunError(f"{', '.join(others)}: in work elsewhere; give the same call again later for the result")
    return False
