"""What will not do in a planned training, and the option to change."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ssl_dc.config import RunConfig
from ssl_dc.fitted_recipe import LEAST_BATCH, STEPS_PER_EPOCH, Machine
from ssl_dc.quantities import counted, gibibytes, in_words, mebibytes
from ssl_dc.training_plan.needs import Needs
from ssl_dc.training_plan.plan import Plan

FEW_STEPS = 4
"""An epoch of fewer steps than this is warned of."""
SHORT = 5
"""A training of fewer steps than so many times the least warm-up of its optimiser is warned of."""
LONG = 24 * 3600
"""Seconds from which a training on a CPU is warned of."""
NEARLY_ALL = 0.8
"""A training is warned of if it needs more than this share of the memory of the machine."""


def warnings_of(plan: Plan, config: RunConfig, machine: Machine) -> Iterator[str]:
    """What will not do in a plan, a sentence each.

    Args:
        plan: The plan, without warnings.
        config: What it plans.
        machine: What it trains on.
    """
    training, needs = config.training, plan.needs
    smaller = max(LEAST_BATCH, training.batch_size * plan.steps_per_epoch // STEPS_PER_EPOCH)
    if plan.steps_per_epoch < FEW_STEPS and smaller < training.batch_size:
        yield (
            f"an epoch is {counted(plan.steps_per_epoch, 'step')}: lower --batch-size (now {training.batch_size}), to"
            f" {smaller} say."
        )
    if plan.epochs * plan.steps_per_epoch < SHORT * training.least_warmup:
        yield (
            f"{config.optimizer.name} learns little in so few steps, of which {training.least_warmup} should be warm-up:"
            f" raise --epochs (now {training.epochs}), or take another --optimizer, or --recipe fitted."
        )
    if needs is None:
        return
    if needs.memory > plan.memory_there * NEARLY_ALL:
        yield _lack_of_memory(needs, plan.memory_there, config)
    if needs.disk > plan.disk_free:
        yield (
            f"the disk has {mebibytes(plan.disk_free)} free and the run takes {mebibytes(needs.disk)}: name an --output"
            f" elsewhere, or --training.keep_checkpoints 1 (now {training.keep_checkpoints})."
        )
    if needs.seconds > LONG and not machine.gpus:
        time = in_words(needs.seconds)
        yield f"this takes about {time} here: lower --epochs (now {training.epochs}), or --recipe fitted."


def _lack_of_memory(needs: Needs, there: int, config: RunConfig) -> str:
    batch, needed = config.training.batch_size, needs.memory
    lacking = f"this needs about {gibibytes(needed)} of memory, and there are {gibibytes(there)}"
    if needs.workers_memory > needed / 2:
        workers = config.training.workers
        return f"{lacking}: lower --workers (now {workers})."
    fits = 2 ** max(1, int(np.log2(max(2.0, batch * there / needed))))
    smaller = f"; {fits} may fit" if fits < batch else ""
    return f"{lacking}: lower --batch-size (now {batch}{smaller}), --image-size (now {config.data.image_size}) or --width."
