"""``ssl-dc embed``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ssl_dc.cli.launched import device_of_launch, progress_from_the_start
from ssl_dc.cli.messages import readable_errors
from ssl_dc.cli.options import assignments_option, budget_option, device_option, json_option, print_json
from ssl_dc.printable import printable


@click.command("embed", short_help="Write a run's features of any data set to a file.")
@readable_errors
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("data", required=False)
@click.option("--data-root", type=click.Path(path_type=Path), metavar="DIR", help="Folder that holds the data set.")
@assignments_option("--data-set", "Any other option of the data set, such as image_column=img.")
@click.option(
    "--split", "splits", multiple=True, metavar="NAME", help="Only this part of it, such as test.  [default: all]"
)
@click.option("--route", type=click.Choice(("dense", "gated")), default="dense", show_default=True, help="The route.")
@budget_option
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    metavar="FILE",
    required=True,
    help="The file: .parquet, or .npy with a .csv beside it.",
)
@click.option("--shard-size", type=click.IntRange(1), metavar="N", help="Images that are kept together.  [default: 1024]")
@click.option("--workers", type=click.IntRange(0), metavar="N", help="Processes that prepare images.  [default: the run's]")
@device_option
@json_option
def command(
    run: Path,
    data: str | None,
    data_root: Path | None,
    data_set: dict[str, Any] | None,
    splits: tuple[str, ...],
    route: str,
    budget: float | str | None,
    output: Path,
    shard_size: int | None,
    workers: int | None,
    device: str | None,
    as_json: bool,
) -> None:
    """Write the features of the frozen encoder of a RUN for all images of DATA, by the dense or the gated route.

    DATA is a folder of pictures, a folder or file of parquet, what datasets' save_to_disk wrote, or the name of a data set
    ("ssl-dc plugins list --kind data"), which --data-root finds. By default it is the run's own. The file has a row for
    each image: its part of the data set, its name, label and class, its cost in MACs, its features.

    A call that was killed goes on when it is called again: shards are kept in FILE.parts until the file is whole. Under
    torchrun the processes share the work.
    """
    progress = progress_from_the_start()
    from ssl_dc import api
    from ssl_dc.cli.tables import print_report
    from ssl_dc.distributed import leave_launch

    embedding = api.embed(
        run,
        data,
        output=output,
        route=route,
        budget=budget,
        data_root=data_root,
        data_set=data_set,
        splits=splits,
        shard_size=shard_size,
        workers=workers,
        device=device or device_of_launch() or "auto",
        watchers=[progress],
        progress=False,
    )
    if not leave_launch():
        return
    if as_json:
        print_json(embedding.as_json())
        return
    print_report(embedding)
    click.echo(f"features: {printable(str(output))}")
    if output.suffix.lower() == ".npy":
        click.echo(f"the other columns: {printable(str(output.with_suffix('.csv')))}")
