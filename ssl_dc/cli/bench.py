"""``ssl-dc bench``."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ssl_dc.cli.messages import readable_errors
from ssl_dc.cli.numbers import FiniteRange, Milliseconds
from ssl_dc.cli.options import (
    budget_option,
    cpu_option,
    data_root_option,
    eval_data_options,
    json_option,
    only_cpu,
    print_json,
)
from ssl_dc.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

    from ssl_dc.bench.benchmark import Benchmark
    from ssl_dc.bench.measure import Measured
    from ssl_dc.bench.profile import Profile
    from ssl_dc.bench.quality import Qualities
    from ssl_dc.bench.runtimes import DenseNetwork
    from ssl_dc.evaluation.report import Report
    from ssl_dc.model import Model

RUNTIMES = (
    *("eager", "folded", "inductor", "onnxruntime", "openvino", "executor"),
    *("openvino-bf16", "executor-bf16", "onnxruntime-int8", "openvino-int8", "executor-int8"),
)
"""Kept here so that help does not import torch. A test compares them with the runtimes there are."""
IMAGES_FOR_GATES = 8
"""Images on which the cost of each gate is measured."""


@click.command("bench", short_help="Time a run's dense and gated routes, by every runtime there is.")
@readable_errors
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "--images", type=click.IntRange(1), default=32, show_default=True, help="Number of held-out images, used in turn."
)
@click.option(
    "--threads",
    type=click.IntRange(1),
    multiple=True,
    help="CPU threads for single images; can be given several times.  [default: 1, and all]",
)
@click.option("--batch", type=click.IntRange(1), default=32, show_default=True, help="Images at once, for throughput.")
@click.option(
    "--seconds", type=FiniteRange(0.1), default=10.0, show_default=True, help="How long each situation is measured."
)
@click.option(
    "--runtime",
    "runtimes",
    type=click.Choice(RUNTIMES),
    multiple=True,
    help="A dense runtime to measure against; can be given several times.  [default: all]",
)
@click.option(
    "--accuracy-images",
    type=click.IntRange(0),
    default=2000,
    show_default=True,
    help="Images that the accuracy of each way is learnt from, and held-out ones that it is measured on, at most; 0: none.",
)
@click.option(
    "--at-most",
    type=Milliseconds(),
    metavar="TIME",
    help="Find the largest budget at which nine of ten single images take at most this long instead: 2ms, 500us.",
)
@click.option("--profile", "by_layer", is_flag=True, help="Show the executor's time layer by layer instead.")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="With --profile: also write its chart to this file, .png, .pdf or .svg.",
)
@budget_option
@data_root_option
@eval_data_options
@cpu_option
@json_option
def command(
    run: Path,
    images: int,
    threads: tuple[int, ...],
    batch: int,
    seconds: float,
    runtimes: tuple[str, ...],
    accuracy_images: int,
    at_most: float | None,
    by_layer: bool,
    output: Path | None,
    budget: float | str | None,
    data_root: Path | None,
    eval_data: str | None,
    eval_data_root: Path | None,
    eval_data_set: dict[str, Any] | None,
    device: str | None,
    as_json: bool,
) -> None:
    """Time the routes of a RUN on this CPU: the speed-up by its gates, beside the one that the MACs promise.

    It measures the latency of single images, with one thread and with all, and the throughput of batches. The dense route
    runs in every runtime (torch with folded norms, torch.compile with frozen weights, onnxruntime, OpenVINO, the
    executor), and in int8 and bf16 where a runtime has them; bf16 only where the processor has instructions for it.
    The gated route runs as in training, where every channel is computed, and in the executor in the same precisions,
    which computes only the channels that the masks keep. All ways take turns. Speed-ups are over the fastest dense
    way in float32. If the gates cost more time than they save, those that do are listed. A last table has the
    accuracy of each way beside its time, and says which to deploy. Measure on a machine that does nothing else.

    The images are those of the run's own data set, or of the one that --eval-data names, such as a labelled one for a run
    on unlabelled images. int8 is calibrated on the training images of that data set.
    """
    only_cpu(device, "bench times what runs on this machine's CPU")
    if output is not None and not by_layer:
        raise ConfigError("--output is for the chart of --profile")
    if at_most is not None and (by_layer or budget is not None):
        raise ConfigError("--at-most finds a budget; leave out --profile and --budget")
    if at_most is not None or by_layer:
        _refuse_unused("--at-most" if at_most is not None else "--profile", times=at_most is not None)
    import torch

    from ssl_dc.bench.runtimes import check_runtimes
    from ssl_dc.devices import expect_cuda_home_without_gpu
    from ssl_dc.evaluation import drawing
    from ssl_dc.evaluation.dialled import dialled_once
    from ssl_dc.evaluation.other_data import evaluation_data, moved_data, on_other_data, told_by
    from ssl_dc.run_folder import RunFolder

    expect_cuda_home_without_gpu()
    if runtimes:
        check_runtimes(runtimes)
    if output is not None:
        drawing.check_drawable(output)
    model = RunFolder.existing(run).load_model()
    other = evaluation_data(data_root, eval_data, eval_data_root, eval_data_set, calibrates=budget is not None)
    model = moved_data(model, data_root)
    if budget is not None:
        model = dialled_once(model, budget)
    if other is not None:
        model = on_other_data(model, other)
    from ssl_dc.bench.examples import example_images
    from ssl_dc.bench.profile import profile
    from ssl_dc.quantities import in_words

    every = torch.get_num_threads()
    report: Report
    with told_by("--eval-data") if other is not None else nullcontext():
        chosen = example_images(model, images)
        if at_most is not None:
            from ssl_dc.bench.at_most import at_most as largest_budget

            click.echo(f"Timing takes about {in_words(seconds)}, after the network is compiled.", err=True)
            report = largest_budget(model, chosen, at_most, threads=threads[0] if threads else 1, seconds=seconds)
        elif by_layer:
            report = profile(model, chosen, threads=threads[0] if threads else every)
            if output is not None:
                drawing.save(report.draw(), output)
        else:
            report = _benchmark(
                model, chosen, threads or (1, every), batch, seconds, runtimes or RUNTIMES, accuracy_images=accuracy_images
            )
    if as_json:
        print_json(report.as_json())
    else:
        from ssl_dc.cli.tables import print_report

        print_report(report)


def _refuse_unused(mode: str, *, times: bool) -> None:
    """Refuse options that say nothing to a mode.

    Args:
        mode: The option that chooses it.
        times: Whether it measures for a time that ``--seconds`` says.

    Raises:
        ConfigError: If one was given.
    """
    context = click.get_current_context()
    unused = {"runtimes": "--runtime", "batch": "--batch", "accuracy_images": "--accuracy-images"}
    if not times:
        unused["seconds"] = "--seconds"
    for name, option in unused.items():
        if context.get_parameter_source(name) == click.core.ParameterSource.COMMANDLINE:
            raise ConfigError(f"{option} has no effect with {mode}; leave it out")
    if len(context.params["threads"]) > 1:
        raise ConfigError(f"{mode} measures with one number of threads; give --threads once")


def _benchmark(
    model: Model,
    images: Tensor,
    threads: tuple[int, ...],
    batch: int,
    seconds: float,
    runtimes: tuple[str, ...],
    *,
    accuracy_images: int,
) -> Benchmark:
    """Measure single images with each number of threads, and batches with the largest number; then accuracy."""
    from ssl_dc.bench.benchmark import Benchmark
    from ssl_dc.bench.measure import Situation, measure
    from ssl_dc.bench.runtimes import DenseNetwork
    from ssl_dc.bench.timing import seconds_of
    from ssl_dc.quantities import in_words
    from ssl_dc.training_images import INT8_IMAGES, training_images

    network = DenseNetwork(model, lambda: training_images(model.config, model.transform, INT8_IMAGES))
    situations = [Situation(1, number) for number in dict.fromkeys(threads)]
    situations.append(Situation(batch, max(threads)))
    gated = 4 if model.has_gates else 0  # as trained, and in the executor in float32, bf16 and int8
    least = len(situations) * seconds_of(len(runtimes) + gated, seconds)
    accuracy = ", and measuring accuracy," if accuracy_images else ""
    click.echo(
        f"Timing takes at least {in_words(least)}. Compiling the network for each runtime{accuracy} comes on top, and may"
        " take minutes for a large network.",
        err=True,
    )
    results = []
    for number, situation in enumerate(situations, start=1):
        click.echo(f"measuring {situation} ({number} of {len(situations)})", err=True)
        results.append(measure(network, images, situation, seconds=seconds, runtimes=runtimes))
    profiled = _gates(model, images[:IMAGES_FOR_GATES], threads[0])
    return Benchmark(results, profiled, _qualities(network, results[0], accuracy_images), len(images))


def _qualities(network: DenseNetwork, measured: Measured, images: int) -> Qualities | None:
    """What each way gives; None where it is not asked for, or the data set has no labels or no held-out images."""
    from ssl_dc.bench.quality import qualities
    from ssl_dc.errors import DataError

    if images == 0:
        return None
    click.echo("measuring accuracy", err=True)
    try:
        return qualities(network, measured, images)
    except DataError as error:
        click.echo(f"accuracy is not measured: {error}", err=True)
        return None


def _gates(model: Model, images: Tensor, threads: int) -> Profile | None:
    """The times of the gates; None where there are none, or no compiled kernel that keeps times."""
    from ssl_dc.bench.profile import profile
    from ssl_dc.errors import RunError

    try:
        return profile(model, images, threads=threads)
    except RunError:
        return None
