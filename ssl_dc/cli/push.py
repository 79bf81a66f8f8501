"""``ssl-dc push``."""

from __future__ import annotations

from pathlib import Path

import click

from ssl_dc.cli.messages import readable_errors
from ssl_dc.cli.options import json_option, print_json


@click.command("push", short_help="Push a run's model to the Hugging Face Hub, with a model card.")
@readable_errors
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("name", metavar="OWNER/NAME")
@click.option("--private/--public", default=None, help="For a model that is made: who sees it.  [default: the owner's own]")
@click.option("--revision", metavar="BRANCH", help="The branch to push to.  [default: main]")
@click.option("--message", metavar="TEXT", help="The commit's message.")
@click.option("--license", "license_id", metavar="ID", help="The model's licence, such as mit or cc-by-4.0.")
@click.option(
    "--curve",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="What evaluate --protocol curve --json printed, for the card.  [default: RUN/curve.json, if it is there]",
)
@click.option("--dry-run", is_flag=True, help="Show the files and the card, and push nothing.")
@json_option
def command(
    run: Path,
    name: str,
    private: bool | None,
    revision: str | None,
    message: str | None,
    license_id: str | None,
    curve: Path | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Push the trained model of a RUN to the Hugging Face Hub as OWNER/NAME, in one commit.

    Its config, its weights, its results and a model card are pushed. Paths of this machine are not. Log in before, once,
    with: hf auth login. Anybody who may read the model loads it with ssl_dc.load("OWNER/NAME").
    """
    from ssl_dc.hub.push import push

    pushed = push(
        run,
        name,
        private=private,
        revision=revision,
        message=message,
        license=license_id,
        curve=curve,
        dry_run=dry_run,
    )
    if as_json:
        print_json(pushed.as_json())
    else:
        from ssl_dc.cli.tables import print_report

        print_report(pushed)
