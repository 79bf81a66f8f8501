"""``ssl-dc report``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ssl_dc.cli.launched import progress_from_the_start
from ssl_dc.cli.messages import readable_errors
from ssl_dc.cli.numbers import FiniteRange
from ssl_dc.cli.options import (
    data_root_option,
    device_option,
    eval_data_options,
    runs_argument,
    seconds_option,
    time_option,
)
from ssl_dc.errors import RunError
from ssl_dc.printable import printable

if TYPE_CHECKING:
    from ssl_dc.reporting.measured import Projector


@click.command("report", short_help="Show runs on one page for a browser.")
@readable_errors
@runs_argument
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Where the page is written.  [default: report.html in the first RUN]",
)
@click.option(
    "--images",
    type=click.IntRange(1),
    default=2000,
    show_default=True,
    help="Held-out images of each run that are looked at, and training images that are learned from, at most.",
)
@time_option
@seconds_option
@click.option(
    "--projection",
    type=click.Choice(("auto", "umap", "pca")),
    default="auto",
    show_default=True,
    help="How features are laid out in the plane; auto is UMAP where it is installed.",
)
@click.option("--live", is_flag=True, help="Follow runs that train: write the page again and again until they end.")
@click.option(
    "--every", type=FiniteRange(1.0), default=30.0, show_default=True, help="With --live: seconds between two pages."
)
@data_root_option
@eval_data_options
@device_option
def command(
    runs: tuple[Path, ...],
    output: Path | None,
    images: int,
    time: bool,
    seconds: float,
    projection: Projector,
    live: bool,
    every: float,
    data_root: Path | None,
    eval_data: str | None,
    eval_data_root: Path | None,
    eval_data_set: dict[str, Any] | None,
    device: str | None,
) -> None:
    """Show RUNs on one page: how they trained, what they reach and cost, what their networks do with images.

    The page is one file, which a browser shows without a network. What is not there, such as labels or the model of a run
    that still trains, the page says. If the data is gone, a page that is in the RUN already is kept: -o writes another.
    With --live an opened page loads itself again while a run trains.
    """
    progress = progress_from_the_start()
    from ssl_dc.evaluation import other_data
    from ssl_dc.reporting.live import follow
    from ssl_dc.reporting.measured import ReportOptions
    from ssl_dc.reporting.recorded import recorded_runs
    from ssl_dc.reporting.report import check_report, page_of

    place = output or runs[0] / "report.html"
    other = other_data.evaluation_data(data_root, eval_data, eval_data_root, eval_data_set)
    options = ReportOptions(images, time, seconds, device or "auto", data_root, projection, other)
    check_report(options, output)
    recorded = recorded_runs(runs)
    if live and any(run.trains for run in recorded):
        follow(runs, place, options, every=every, watchers=[progress])
    else:
        page = page_of(recorded, options, [progress])
        if output is None and page.without_data and place.exists():
            raise RunError(
                f"{place} is kept, since a new page would leave parts of {', '.join(page.without_data)} out: give"
                " --data-root DIR if the data has moved, or -o FILE to write the new page to another file"
            )
        page.save(place)
    click.echo(f"report: {printable(str(place))}")
