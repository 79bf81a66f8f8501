"""``ssl-dc bench``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ssl_dc.cli.messages import readable_errors
from ssl_dc.cli.options import json_option, print_json
from ssl_dc.errors import ConfigError

if TYPE_CHECKING:
    from ssl_dc.bench.measure import Measured

RUNTIMES = ("eager", "folded", "inductor", "onnxruntime", "executor")
"""Kept here so that help imports no torch (a test holds them equal to those there are)."""


@click.command("bench", short_help="Time a run's dense and gated routes, by every runtime there is.")
@readable_errors
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--images", type=click.IntRange(1), default=32, show_default=True, help="Held-out images, taken in turn.")
@click.option(
    "--threads",
    type=click.IntRange(1),
    multiple=True,
    help="CPU threads for single images; may be given again.  [default: 1, and all]",
)
@click.option("--batch", type=click.IntRange(1), default=32, show_default=True, help="Images at once, for throughput.")
@click.option(
    "--seconds", type=click.FloatRange(0.1), default=10.0, show_default=True, help="How long each situation is measured."
)
@click.option(
    "--runtime",
    "runtimes",
    type=click.Choice(RUNTIMES),
    multiple=True,
    help="A dense runtime to measure against; may be given again.  [default: all]",
)
@click.option("--profile", "by_layer", is_flag=True, help="Show instead where the executor's time goes, layer by layer.")
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="With --profile: where its chart is written, .png, .pdf or .svg.",
)
@json_option
def command(
    run: Path,
    images: int,
    threads: tuple[int, ...],
    batch: int,
    seconds: float,
    runtimes: tuple[str, ...],
    by_layer: bool,
    output: Path | None,
    as_json: bool,
) -> None:
    """Time the routes of a RUN on this CPU: what its gates save on a clock, beside what the MACs promise.

    Latency of single images, with one thread and with all, and throughput of batches: the dense route by every runtime
    (folded norms, torch.compile with frozen weights, onnxruntime, the executor with nothing gated), the gated route as
    training runs it, which computes every channel, and by the executor, which computes only those that the masks keep.
    All ways are measured in turns; speed-ups are over the fastest dense way. Measure on a machine that does nothing else.
    """
    if output is not None and not by_layer:
        raise ConfigError("--output is for the chart of --profile")
    import torch

    from ssl_dc.evaluation import drawing
    from ssl_dc.run_folder import RunFolder

    if output is not None:
        drawing.check_drawable(output)
    model = RunFolder.existing(run).load_model()
    from ssl_dc.bench.examples import example_images

    chosen = example_images(model, images)
    every = torch.get_num_threads()
    if by_layer:
        from ssl_dc.bench.profile import profile
        from ssl_dc.cli.tables import print_profile

        measured = profile(model, chosen, threads=threads[0] if threads else every)
        if output is not None:
            drawing.save(measured.draw(), output)
        if as_json:
            print_json(measured.as_json())
        else:
            print_profile(measured)
        return
    from ssl_dc.bench.measure import Situation, measure

    situations = [Situation(1, number) for number in dict.fromkeys(threads or (1, every))]
    situations.append(Situation(batch, max(threads or (every,))))
    results: list[Measured] = []
    for number, situation in enumerate(situations, start=1):
        click.echo(f"measuring {situation} ({number} of {len(situations)})", err=True)
        results.append(measure(model, chosen, situation, seconds=seconds, runtimes=runtimes or RUNTIMES))
    if as_json:
        print_json([result.as_json() for result in results])
    else:
        from ssl_dc.cli.tables import print_bench

        print_bench(results)
