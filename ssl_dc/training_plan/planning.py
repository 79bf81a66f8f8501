"""Plans a training: tries a few small steps, and reckons from them what the whole takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Any

from ssl_dc.assemble import view_sizes
from ssl_dc.config import RunConfig
from ssl_dc.data.base import ImageSet, Splits
from ssl_dc.distributed import world_size
from ssl_dc.errors import is_lack_of_memory
from ssl_dc.evaluation.features import BATCH
from ssl_dc.fitted_recipe import Machine, this_machine
from ssl_dc.routes import Route
from ssl_dc.training.rehearsal import Rehearsal, Timer, TrialError, rehearse
from ssl_dc.training.sampling import GlobalBatches
from ssl_dc.training_cost import MACS_PER_CORE, MACS_PER_GPU, training_macs
from ssl_dc.training_plan.advice import warnings_of
from ssl_dc.training_plan.counts import Counts
from ssl_dc.training_plan.needs import needs_of
from ssl_dc.training_plan.noise import Noise
from ssl_dc.training_plan.plan import Plan
from ssl_dc.training_plan.resources import disk_free, memory_there

LONGEST_TRIAL = 10.0
"""Seconds that the smallest trial step may take, about. A network that takes longer is not tried."""


def make_plan(
    config: RunConfig,
    splits: Splits | Counts,
    folder: Path,
    *,
    steps_done: int = 0,
    timer: Timer = perf_counter,
    machine: Machine | None = None,
) -> Plan:
    """Plan a training. A few small steps are tried on a network that is thrown away; nothing is written.

    In a launch of several processes all of them call it.

    Args:
        config: The run's config.
        splits: Its images; or how many there are, where they are not at hand. Then images of noise stand for them.
        folder: Where the run is to go.
        steps_done: Steps that are done already.
        timer: The clock.
        machine: The machine; by default this one.

    Raises:
        ConfigError: If the config cannot be trained on so many images.
    """
    machine = machine or this_machine()
    limited = any(limit is not None for limit in (config.data.limit, config.data.test_limit))
    counts = Counts.of(splits, limited) if isinstance(splits, Splits) else splits
    images = splits.train if isinstance(splits, Splits) else Noise(counts.train, config.data.image_size)
    training = config.training
    steps_per_epoch = GlobalBatches.steps_per_epoch(counts.train, training.batch_size)
    steps = training.epochs * steps_per_epoch - steps_done
    tried, untried = _tried(config, images, timer, machine)
    plan = Plan(
        pictures=counts,
        network=f"{config.backbone.in_words()}{_width(config)}, {config.data.image_size} px, {config.gating.name}",
        recipe=f"{config.objective.name}, {config.optimizer.name}, learning rate {config.optimizer.lr:g}",
        views=views_in_words(config),
        machine=str(machine),
        epochs=training.epochs,
        steps_per_epoch=steps_per_epoch,
        steps=steps,
        batch_size=training.batch_size,
        needs=None if tried is None else needs_of(tried, config, counts, steps, machine),
        untried=untried,
        memory_there=memory_there(),
        folder=str(folder),
        disk_free=disk_free(folder),
    )
    return replace(plan, warnings=tuple(warnings_of(plan, config, machine)))


def _tried(config: RunConfig, images: ImageSet, timer: Timer, machine: Machine) -> tuple[Rehearsal | None, str]:
    """What trial steps take; or None, and why none were taken."""
    macs = training_macs(config)
    speed = MACS_PER_GPU if machine.gpus else machine.cores * MACS_PER_CORE / machine.processes
    if 2 * macs / speed > LONGEST_TRIAL:
        return None, "one step of this network takes too long to be tried"
    try:
        return rehearse(config, images, timer, speed, macs, BATCH), ""
    except TrialError as error:
        if world_size() > 1:  # the other processes may wait for this one inside the step
            raise
        if error.__cause__ is not None and is_lack_of_memory(error.__cause__):
            return None, "there is not enough memory for a trial step"
        return None, "the trial step failed, and the training will say why"


def _width(config: RunConfig) -> str:
    width: Mapping[str, Any] = config.backbone.model_dump()
    return f" of width {width['width']}" if "width" in width else ""


def views_in_words(config: RunConfig) -> str:
    """The views of an image: how many there are, of which size, and by which routes."""
    sizes = view_sizes(config)
    routes = {
        size: [route for route, of_view in zip(config.routes, sizes, strict=True) if of_view == size] for size in sizes
    }
    kinds = ("",) if len(routes) == 1 else ("global ", "local ")
    return "; ".join(
        f"{len(of_size)} {kind}of {size} px: {_listed(of_size)}"
        for kind, (size, of_size) in zip(kinds, routes.items(), strict=True)
    )


def _listed(routes: Sequence[Route]) -> str:
    return f"all {routes[0]}" if len(routes) > 2 and len(set(routes)) == 1 else ", ".join(map(str, routes))
