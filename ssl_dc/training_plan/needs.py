"""What a training needs: time, memory and files, estimated from a few trial steps."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ssl_dc.assemble import view_sizes
from ssl_dc.calibration import CALIBRATION_IMAGES
from ssl_dc.config import RunConfig
from ssl_dc.evaluation.features import BATCH
from ssl_dc.fitted_recipe import Machine
from ssl_dc.training.rehearsal import Rehearsal
from ssl_dc.training_cost import MACS_PER_CORE, MACS_PER_GPU
from ssl_dc.training_plan.counts import Counts
from ssl_dc.training_plan.resources import libraries

CALIBRATION_PASSES = 10
"""Passes over the calibration images, about, for each budget."""
WORKER_BYTES = 120 * 2**20
"""Memory of its own that a process takes which prepares images, without the images."""


@dataclass(frozen=True)
class Needs:
    """What a training needs, as far as a few trial steps tell.

    Attributes:
        parameters: Number of trained parameters, heads included.
        dense_macs: Cost of the dense route, for one image.
        gated_macs: What the gated route may pay for one image; None without gates.
        step_seconds: Seconds of a step.
        evaluation_seconds: Seconds of calibration and evaluation at the end.
        seconds: Seconds of all steps that are left, of the evaluation, and of reading images that are kept in memory.
        memory: Bytes of memory at the highest, over all processes of this machine; on a GPU those of the GPU.
        workers_memory: Bytes of them that the processes take which prepare images.
        disk: Bytes of the run's folder.
    """

    parameters: int
    dense_macs: int
    gated_macs: int | None
    step_seconds: float
    evaluation_seconds: float
    seconds: float
    memory: int
    workers_memory: int
    disk: int


def needs_of(tried: Rehearsal, config: RunConfig, counts: Counts, steps: int, machine: Machine) -> Needs:
    """What a training needs.

    Args:
        tried: What the trial steps took.
        config: The training.
        counts: How many images it has.
        steps: Steps that are left to do.
        machine: What it trains on.
    """
    budget = config.budget.target
    of_step = step_seconds(tried, config, machine)
    kept = tried.shrunk_bytes or tried.resident_bytes
    before = tried.reading_seconds * counts.train / machine.cores if kept else 0.0
    at_end = evaluation_seconds(tried, config, counts, machine)
    return Needs(
        parameters=tried.parameters,
        dense_macs=tried.dense_macs,
        gated_macs=None if budget is None else round(budget * tried.dense_macs),
        step_seconds=of_step,
        evaluation_seconds=at_end,
        seconds=before + steps * of_step + at_end,
        memory=memory(tried, config, machine),
        workers_memory=workers_memory(tried, config, machine),
        disk=disk(tried, config, steps),
    )


def step_seconds(tried: Rehearsal, config: RunConfig, machine: Machine) -> float:
    """Seconds of a step, with the images that are prepared meanwhile.

    Processes that prepare images work beside the training. On a CPU they share its cores.
    """
    workers = config.training.workers
    if workers == 0 or tried.resident_bytes:
        return tried.step_seconds + tried.drawing_seconds
    if machine.gpus:
        return max(tried.step_seconds, tried.drawing_seconds / min(workers, max(1, machine.cores // machine.gpus)))
    cores = max(1, machine.cores // machine.processes)
    threads = min(torch.get_num_threads(), cores)
    shared = (tried.step_seconds * threads + tried.drawing_seconds) / cores
    return max(tried.step_seconds, tried.drawing_seconds / workers, shared)


def evaluation_seconds(tried: Rehearsal, config: RunConfig, counts: Counts, machine: Machine) -> float:
    """Seconds of calibration and of the evaluation at the end."""
    calibrated = min(counts.calibration or counts.train, CALIBRATION_IMAGES)
    passes = CALIBRATION_PASSES * len(config.budget.budgets) if config.budget.control == "adaptive" else 0
    routes = 2 if config.gating.gates else 1
    evaluated = counts.labelled + counts.held_out if counts.labelled else counts.held_out or calibrated
    networks = 2 if counts.labelled else 1
    forward = tried.forward_seconds * (calibrated * passes + evaluated * routes * networks / machine.processes)
    reading = tried.reading_seconds * (calibrated + evaluated / max(1, min(config.training.workers, machine.cores)))
    width = 8 * getattr(config.backbone, "width", 64)
    compared = counts.labelled * counts.held_out * width * (routes * networks + 1)
    return forward + reading + compared / (MACS_PER_GPU if machine.gpus else machine.cores * MACS_PER_CORE)


def memory(tried: Rehearsal, config: RunConfig, machine: Machine) -> int:
    """Bytes at the highest: of the GPU, or of all processes of this machine together."""
    if tried.device_bytes:
        return tried.device_bytes + tried.resident_bytes
    weights = 2 * tried.learner_bytes + 2 * tried.optimizer_bytes  # with gradients, and what the optimiser computes in
    side, drawn = config.data.image_size, drawn_bytes(config, machine)
    highest = max(drawn + tried.activation_bytes, BATCH * (tried.evaluation_bytes + 12 * side * side))
    kept = tried.resident_bytes + 2 * tried.shrunk_bytes  # those are put together from single ones
    return machine.processes * (libraries() + weights + kept + highest) + workers_memory(tried, config, machine)


def workers_memory(tried: Rehearsal, config: RunConfig, machine: Machine) -> int:
    """Bytes of this machine's memory that the processes take which prepare images.

    They are none on a GPU, whose memory is another one, and where the training process holds all images.
    """
    workers = 0 if tried.resident_bytes or tried.device_bytes else config.training.workers
    return machine.processes * workers * (WORKER_BYTES + 2 * drawn_bytes(config, machine))


def drawn_bytes(config: RunConfig, machine: Machine) -> int:
    """Bytes of the views of a batch of one process."""
    pixels = sum(side * side for side in view_sizes(config))
    return 4 * 3 * pixels * (config.training.batch_size // machine.processes)


def disk(tried: Rehearsal, config: RunConfig, steps: int) -> int:
    """Bytes of the run's folder: the model, the resume points with one that is being written, and the metrics."""
    training = config.training
    kept = (training.keep_checkpoints + 1) * (tried.learner_bytes + tried.optimizer_bytes)
    return tried.encoder_bytes + kept + 600 * (steps // training.log_every + 1)
