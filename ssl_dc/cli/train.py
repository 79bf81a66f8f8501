"""``ssl-dc train``."""

from __future__ import annotations

from pathlib import Path

import click

from ssl_dc.cli.options import config_options, json_option, print_json, readable_errors
from ssl_dc.config import Resolved
from ssl_dc.errors import ConfigError

OWN_IMAGES = (
    "No data set named: training on scikit-learn's handwritten digits. For your own images:"
    " --data folder --data-root DIR, with DIR/train/CLASS/*.jpg and DIR/val/CLASS/*.jpg."
)


@click.command("train", short_help="Pre-train an encoder that is dense and gated at once.")
@readable_errors
@config_options
@click.option("--output", type=click.Path(path_type=Path), help="Folder of the run; a new one under runs/ by default.")
@click.option("--resume", type=click.Path(path_type=Path), metavar="RUN", help="Go on with a run where it stopped.")
@json_option
def command(resolved: Resolved, output: Path | None, resume: Path | None, as_json: bool) -> None:
    """Pre-train one encoder that is a dense and a gated network at once.

    Ends by saying what was learned (kNN-1 on held-out images, dense and gated, trained and untrained) and what it costs.
    Without --data it trains on scikit-learn's handwritten digits, which need no download.
    """
    said = {key: source for key, source in resolved.provenance.items() if source.startswith(("--", "SSL")) or ":" in source}
    if resume and (said or output):
        raise ConfigError(
            f"--resume goes on with the run's own config; leave out {', '.join(sorted(set(said.values())) or ['--output'])}"
        )
    note = OWN_IMAGES if not resume and resolved.provenance["data.name"] == "default" else ""
    from ssl_dc import api
    from ssl_dc.cli.progress import make_progress
    from ssl_dc.cli.tables import print_outcome

    watchers = [make_progress(note)]
    run = api.resume(resume, watchers=watchers) if resume else api.train(resolved.config, output=output, watchers=watchers)
    if as_json:
        print_json({"run": str(run.folder), **run.outcome.as_json()})
    else:
        print_outcome(run.outcome)
        click.echo(f"run: {run.folder}")
