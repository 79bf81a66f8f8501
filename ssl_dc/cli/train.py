"""``ssl-dc train``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ssl_dc.cli.launched import progress_from_the_start
from ssl_dc.cli.messages import readable_errors
from ssl_dc.cli.options import ConfigCommand, config_options, json_option, print_json
from ssl_dc.config import Layer, Resolved, resolve
from ssl_dc.config.layers import merged
from ssl_dc.errors import ConfigError
from ssl_dc.plugins.registry import registry
from ssl_dc.printable import printable

if TYPE_CHECKING:
    from ssl_dc.runs import Run


@click.command("train", cls=ConfigCommand, short_help="Pre-train an encoder that is dense and gated at once.")
@readable_errors
@config_options
@click.option("--output", type=click.Path(path_type=Path), help="Folder of the run; a new one under runs/ by default.")
@click.option("--resume", type=click.Path(path_type=Path), metavar="RUN", help="Go on with a run where it stopped.")
@click.option("--accept-changed-data", is_flag=True, help="With --resume: go on though the training images have changed.")
@json_option
def command(
    layers: list[Layer], output: Path | None, resume: Path | None, accept_changed_data: bool, as_json: bool
) -> None:
    """Pre-train one encoder that is a dense and a gated network at once.

    Ends by saying what was learned (kNN-1 on held-out images, dense and gated, trained and untrained) and what it costs.
    Without --data it trains on small real images that need no download.

    Any setting that has no option here is set by its key, such as --training.accumulation 2; "ssl-dc plugins show NAME"
    lists those of a part, "ssl-dc config show" all of them.
    """
    if accept_changed_data and resume is None:
        raise ConfigError("--accept-changed-data: a new run has no data to compare with; it belongs to --resume")
    run = _resumed(resume, layers, output, accept_changed_data) if resume else _trained(resolve(layers), output)
    from ssl_dc.cli.tables import print_report
    from ssl_dc.distributed import leave_launch

    if not leave_launch():
        return  # only the main process prints the result
    if as_json:
        print_json({"run": str(run.folder), **run.outcome.as_json()})
    else:
        print_report(run.outcome)
        click.echo(f"run: {printable(str(run.folder))}")


def _trained(resolved: Resolved, output: Path | None) -> Run:
    unnamed = resolved.provenance["data.name"] == "default"
    if unnamed and resolved.config.data.root is not None:
        source = resolved.provenance["data.root"]
        names = ", ".join(registry().names("data"))
        raise ConfigError(f"{source}: name the data set that is there as well, by --data ({names})")
    note = resolved.config.data.notice if unnamed else ""
    progress = progress_from_the_start(note)
    from ssl_dc import api

    return api.train(resolved.config, output=output, watchers=[progress], progress=False)


WITH_RESUME = {"data.root": "data_root", "data.bad_images": "bad_images"}
"""Settings that may be given again with ``--resume``, and their names in :func:`ssl_dc.resume`."""


def _resumed(folder: Path, layers: list[Layer], output: Path | None, accept_changed_data: bool) -> Run:
    said = merged(layers)
    others = sorted({said.sources[key] for key in said.values.keys() - WITH_RESUME} | ({"--output"} if output else set()))
    if others:
        raise ConfigError(f"--resume goes on with the run's own config; leave out {', '.join(others)}")
    anew = {name: said.values[key] for key, name in WITH_RESUME.items() if key in said.values}
    progress = progress_from_the_start()
    from ssl_dc import api

    return api.resume(folder, accept_changed_data=accept_changed_data, watchers=[progress], progress=False, **anew)
