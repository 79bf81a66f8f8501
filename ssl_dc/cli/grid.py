"""``ssl-dc grid``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ssl_dc.cli.messages import readable_errors
from ssl_dc.cli.options import jobs_options, json_option, print_json
from ssl_dc.config import file_layer, uniform_layer
from ssl_dc.errors import ConfigError, RunError
from ssl_dc.printable import printable

if TYPE_CHECKING:
    from ssl_dc.jobs.tasks import TrainingTask


@click.command("grid", short_help="Train the runs of many config files, here or through SLURM.")
@readable_errors
@click.argument("configs", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="CONFIG...")
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="Folder of all runs.")
@click.option("--seeds", type=click.IntRange(1), metavar="N", help="Train each config N times, with the seeds from 0 on.")
@jobs_options
@json_option
def command(
    configs: tuple[Path, ...],
    output: Path,
    seeds: int | None,
    jobs: int | None,
    slurm: dict[str, Any] | None,
    as_json: bool,
) -> None:
    """Train and evaluate a run for each CONFIG, a YAML or JSON file as --config of train takes it.

    Each run has a folder in --output, with the name of its file. Runs that are done are passed over, and runs that were
    interrupted go on. Several workers share the list (--jobs), and no two of them train the same run. You can give the same
    call again at any time, also on another machine while this one works.
    """
    tasks = _tasks(configs, output, seeds)
    for task in tasks:
        task.check()
    left = [task for task in tasks if not task.is_done()]
    from ssl_dc.jobs.tasks import summed, work
    from ssl_dc.jobs.workers import on_this_machine, through_slurm

    if slurm is not None:
        queued = through_slurm(left, output, jobs or len(left), slurm) if left else []
        document = {"queued": queued, "left": [task.name for task in left]}
        print_json(document) if as_json else click.echo(f"{len(left)} runs left, {len(queued)} jobs: {' '.join(queued)}")
        return
    parts = on_this_machine(left, output, jobs) if jobs and left else [work(left, output)]
    worked = summed(parts)
    for task in tasks:
        state = "done" if task.is_done() else "failed" if task.name in worked.failed else "in work elsewhere"
        if not as_json:
            click.echo(f"{printable(str(task.folder))}: {state}")
    if as_json:
        print_json({"done": [task.name for task in tasks if task.is_done()], "failed": worked.failed, "left": worked.left})
    if worked.failed:
        name, text = next(iter(worked.failed.items()))
        raise RunError(f"{len(worked.failed)} of {len(tasks)} runs failed; {name}: {text}")


def _tasks(configs: tuple[Path, ...], output: Path, seeds: int | None) -> list[TrainingTask]:
    """A task for each config and seed.

    Raises:
        ConfigError: If two have the same name.
    """
    from ssl_dc.jobs.tasks import TrainingTask

    tasks: dict[str, TrainingTask] = {}
    for config in configs:
        layer = file_layer(config)
        for seed in range(seeds) if seeds else (None,):
            name = config.stem if seed is None else f"{config.stem}-seed{seed}"
            if name in tasks:
                raise ConfigError(f"{config}: another config has the name {name}, and both would be one run; rename one")
            layers = (layer,) if seed is None else (layer, uniform_layer({"seed": seed}, "--seeds"))
            tasks[name] = TrainingTask(name, layers, output / name)
    return list(tasks.values())
