"""``ssl-dc train``."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ssl_dc.cli.launched import progress_from_the_start
from ssl_dc.cli.messages import readable_errors
from ssl_dc.cli.options import ConfigCommand, config_options, json_option, print_json
from ssl_dc.config import Layer, resolve
from ssl_dc.config.layers import merged
from ssl_dc.errors import ConfigError, DataError, SslDcError
from ssl_dc.launch import is_first_process
from ssl_dc.plugins.registry import registry
from ssl_dc.printable import printable
from ssl_dc.run_lock import check_not_held

if TYPE_CHECKING:
    from ssl_dc.runs import Run


@click.command("train", cls=ConfigCommand, short_help="Pre-train an encoder that is dense and gated at once.")
@readable_errors
@config_options
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="Folder of the run; a new one under runs/ by default."
)
@click.option(
    "--resume",
    type=click.Path(path_type=Path),
    metavar="RUN",
    help="Go on with a run where it stopped; with --epochs N to train it for N epochs in all.",
)
@click.option("--accept-changed-data", is_flag=True, help="With --resume: go on though the training images have changed.")
@click.option("--dry-run", is_flag=True, help="Print the plan, to standard output, and stop. Nothing is written.")
@click.option("--pictures", type=click.IntRange(min=1), help="With --dry-run: plan for so many, without looking for data.")
@json_option
def command(
    layers: list[Layer],
    output: Path | None,
    resume: Path | None,
    accept_changed_data: bool,
    dry_run: bool,
    pictures: int | None,
    as_json: bool,
) -> None:
    """Pre-train one encoder that is a dense and a gated network at once.

    Begins with a plan on standard error: steps, time, memory, files, and what to change. --dry-run prints the plan alone.
    Ends by saying what was learned (kNN-1 on held-out images, dense and gated, trained and untrained) and what it costs.
    Without --data it trains on small real images that need no download.

    Any setting that has no option here is set by its key, such as --training.accumulation 2; "ssl-dc plugins show NAME"
    lists those of a part, "ssl-dc config show" all of them.
    """
    if accept_changed_data and resume is None:
        raise ConfigError("--accept-changed-data: a new run has no data to compare with; it belongs to --resume")
    if pictures is not None and (resume or not dry_run):
        raise ConfigError("--pictures: a training counts its pictures itself; it belongs to --dry-run of a new run")
    if dry_run:
        _print_plan(layers, output, resume, accept_changed_data, pictures, as_json)
        return
    run = _resumed(resume, layers, output, accept_changed_data) if resume else _trained(layers, output)
    from ssl_dc.cli.tables import print_report
    from ssl_dc.distributed import leave_launch

    if not leave_launch():
        return  # only the main process prints the result
    if as_json:
        print_json({"run": str(run.folder), **run.outcome.as_json()})
    else:
        print_report(run.outcome.at(run.folder))
        click.echo(f"run: {printable(str(run.folder))}")


def _trained(layers: list[Layer], output: Path | None) -> Run:
    resolved = resolve(layers)
    unnamed = resolved.provenance["data.name"] == "default"
    if unnamed and resolved.config.data.root is not None:
        source = resolved.provenance["data.root"]
        names = ", ".join(registry().names("data"))
        raise ConfigError(f"{source}: name the data set that is there as well, by --data ({names})")
    note = resolved.config.data.notice if unnamed else ""
    progress = progress_from_the_start(note)
    from ssl_dc import api
    from ssl_dc.cli.tables import print_report
    from ssl_dc.distributed import rank
    from ssl_dc.trackers.base import phase

    with phase([progress], "reading the pictures"):
        opened = api.opened(layers, output)
    with phase([progress], "planning"):
        plan = api.plan(opened, output=output)
    if rank() == 0:
        print_report(plan, to_stderr=True)
    plan.check()
    return api.train(opened, output=output, watchers=[progress], progress=False)


def _print_plan(
    layers: list[Layer],
    output: Path | None,
    resume: Path | None,
    accept_changed_data: bool,
    pictures: int | None,
    as_json: bool,
) -> None:
    """Print the plan of a training, or of what is left of one, to standard output."""
    from ssl_dc import api
    from ssl_dc.cli.tables import print_report
    from ssl_dc.fitted_recipe import fit

    if resume is not None:
        said = _said_anew(layers, output)
        plan = api.plan_of_rest(api.opened_again(resume, accept_changed_data=accept_changed_data, **said))
    else:
        try:
            plan = api.plan(fit(layers, pictures=pictures), output=output, pictures=pictures)
        except DataError as error:
            raise DataError(f"{error} Without the data, --pictures N plans for so many.") from error
    if as_json:
        print_json(plan.as_json())
    else:
        print_report(plan)


WITH_RESUME = {
    "training.epochs": "epochs",
    "training.compile": "compiled",
    "data.root": "data_root",
    "data.bad_images": "bad_images",
}
"""Settings that may be given again with ``--resume``, and their names in :func:`ssl_dc.resume`."""


def _resumed(folder: Path, layers: list[Layer], output: Path | None, accept_changed_data: bool) -> Run:
    anew = _said_anew(layers, output)
    if is_first_process():
        check_not_held(folder)  # before the pictures are read and anything is planned
    progress = progress_from_the_start()
    from ssl_dc import api
    from ssl_dc.distributed import rank
    from ssl_dc.trackers.base import phase

    with phase([progress], "reading the pictures"):
        opened = api.opened_again(folder, accept_changed_data=accept_changed_data, **anew)
    with suppress(SslDcError):  # what is wrong with the run, the run itself says
        with phase([progress], "planning"):
            plan = api.plan_of_rest(opened)
        if rank() == 0 and plan.steps:
            click.echo(printable(plan.brief()), err=True)
    return api.resume_opened(opened, [progress])


def _said_anew(layers: list[Layer], output: Path | None) -> dict[str, Any]:
    """The settings that may be given again with ``--resume``, by their names in :func:`ssl_dc.resume`.

    Raises:
        ConfigError: If others are given.
    """
    said = merged(layers)
    others = sorted({said.sources[key] for key in said.values.keys() - WITH_RESUME} | ({"--output"} if output else set()))
    if others:
        raise ConfigError(f"--resume goes on with the run's own config; leave out {', '.join(others)}")
    return {name: said.values[key] for key, name in WITH_RESUME.items() if key in said.values}
