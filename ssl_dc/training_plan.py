"""What a training will do and take, before it begins: steps, costs, time, memory, files, and what to change."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from PIL import Image

from ssl_dc.assemble import view_sizes
from ssl_dc.calibration import CALIBRATION_IMAGES
from ssl_dc.config import RunConfig
from ssl_dc.data.base import ImageSet, Labels, Splits
from ssl_dc.data.parquet_files import memory_of_the_machine
from ssl_dc.distributed import world_size
from ssl_dc.errors import ConfigError, is_lack_of_memory
from ssl_dc.evaluation.features import BATCH
from ssl_dc.evaluation.report import Report, ReportTable
from ssl_dc.fitted_recipe import LEAST_BATCH, STEPS_PER_EPOCH, Machine, this_machine
from ssl_dc.plugins.options import PublishedSet
from ssl_dc.printable import in_words
from ssl_dc.routes import Route
from ssl_dc.training.rehearsal import Rehearsal, Timer, TrialError, rehearse
from ssl_dc.training.sampling import GlobalBatches
from ssl_dc.training_cost import MACS_PER_CORE, MACS_PER_GPU, training_macs

LONGEST_TRIAL = 10.0
"""Seconds that the smallest trial step may take, about. A network that takes longer is not tried."""
FEW_STEPS = 4
"""An epoch of fewer steps than this is warned of."""
SHORT = 5
"""A training of fewer steps than so many times the least warm-up of its optimiser is warned of."""
LONG = 24 * 3600
"""Seconds from which a training on a CPU is warned of."""
CALIBRATION_PASSES = 20
"""Passes over the calibration images, about, for each budget."""
WORKER_BYTES = 120 * 2**20
"""Memory of its own that a process takes which prepares images, without the images."""
LIBRARIES_BYTES = 450 * 2**20
"""Memory that Python with torch takes before anything is trained, where the system does not say."""
NEARLY_ALL = 0.8
"""A training is warned of if it needs more than this share of the memory of the machine."""
SLACK = 1.25
"""A training is refused if it needs this many times the memory of the machine: estimates err."""


@dataclass(frozen=True)
class Counts:
    """How many images a training has.

    Attributes:
        train: To train on.
        labelled: Labelled images that evaluation learns from; 0 without labels.
        held_out: Held out, to evaluate on or to measure cost.
        calibration: Held out, to calibrate gates on; 0 where training images are used.
        left_out: Files that are not used.
        why_left_out: How many and why, in words; empty if there are none.
        summary: What was understood of the user's files, in words; may be empty.
        limited: Whether limits of the config leave out some of what the summary counts.
    """

    train: int
    labelled: int = 0
    held_out: int = 0
    calibration: int = 0
    left_out: int = 0
    why_left_out: str = ""
    summary: str = ""
    limited: bool = False

    @classmethod
    def of(cls, splits: Splits, limited: bool) -> Counts:
        """Those of a data set that is open."""
        labelled = len(splits.evaluation_train) if splits.classes else 0
        calibration = 0 if splits.calibration is None else len(splits.calibration)
        found = splits.found
        left_out = sum(map(len, found.left_out.reasons.values())) if found else 0
        return cls(
            len(splits.train),
            labelled,
            len(splits.test),
            calibration,
            left_out,
            str(found.left_out) if found else "",
            found.summary if found else "",
            limited,
        )

    @classmethod
    def published(cls, known: PublishedSet, config: RunConfig) -> Counts:
        """Those of a data set that is always the same, as far as the config's limits let it be used."""
        limit, test_limit = config.data.limit or known.train, config.data.test_limit or known.test
        train, labelled, test = min(known.train, limit), min(known.labelled, limit), min(known.test, test_limit)
        summary = f"{train:,} to train on, {test:,} held out, as published: {config.data.name} is not here"
        return cls(train, labelled, test, summary=summary)


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


@dataclass(frozen=True)
class Plan(Report):
    """What a training will do and take.

    Attributes:
        pictures: How many images it has.
        network: The network, in words.
        recipe: Objective, optimiser and learning rate, in words.
        views: The views of an image, with their sizes and routes, in words.
        machine: What it trains on, in words.
        epochs: Passes over the training images.
        steps_per_epoch: Steps of an epoch.
        steps: Optimiser steps that are left to do.
        batch_size: Images of a step, over all processes.
        needs: Time, memory and files; None if no step was tried.
        untried: Why none was tried; empty if some were.
        memory_there: Bytes of memory that the machine has, or the GPU.
        folder: The run's folder.
        disk_free: Bytes that are free there.
        warnings: What will not do, each with the option to change.
        weights: The weights that the encoder starts from, in words; empty if they are drawn.
    """

    pictures: Counts
    network: str
    recipe: str
    views: str
    machine: str
    epochs: int
    steps_per_epoch: int
    steps: int
    batch_size: int
    needs: Needs | None
    untried: str
    memory_there: int
    folder: str
    disk_free: int
    warnings: tuple[str, ...] = ()
    weights: str = ""

    def check(self) -> None:
        """Refuse a training that the system would kill.

        Raises:
            ConfigError: If it needs far more memory than there is. Estimates err, so a little more is only warned of.
        """
        if self.needs is not None and self.needs.memory > SLACK * self.memory_there:
            raise ConfigError(next(warning for warning in self.warnings if "of memory" in warning))

    def as_json(self) -> dict[str, Any]:
        """The plan as plain values."""
        return {**asdict(self), "warnings": list(self.warnings)}

    def tables(self) -> Sequence[ReportTable]:
        """The plan on one screen."""
        rows = [
            ("pictures", _pictures(self.pictures)),
            ("training", self._training()),
            ("recipe", self.recipe),
            ("views", self.views),
            ("network", self._network()),
            *([("weights", self.weights)] if self.weights else []),
            ("MACs an image", self._macs()),
            ("time", self._time()),
            ("memory", self._memory()),
            ("files", self._files()),
        ]
        return [ReportTable("Plan", ("", self.machine), rows, note="\n".join(self._notes()))]

    def brief(self) -> str:
        """The plan of what is left of a run, in one line."""
        return f"{self.folder}: {self._training()}; time: {self._time()}; memory: {self._memory()}"

    def _training(self) -> str:
        whole = self.epochs * self.steps_per_epoch
        left = "" if self.steps == whole else f"; {self.steps:,} of these are left"
        return (
            f"{_counted(self.epochs, 'epoch')} of {_counted(self.steps_per_epoch, 'step')} = {whole:,} steps of"
            f" {self.batch_size:,} images{left}"
        )

    def _network(self) -> str:
        return self.network if self.needs is None else f"{self.network}, {self.needs.parameters:,} parameters with heads"

    def _macs(self) -> str:
        if self.needs is None:
            return "not known"
        gated = "" if self.needs.gated_macs is None else f", {self.needs.gated_macs:,} gated"
        return f"{self.needs.dense_macs:,} dense{gated}"

    def _time(self) -> str:
        if self.needs is None:
            return "not known"
        return (
            f"about {in_words(self.needs.seconds)}: {self.needs.step_seconds:.3g} s a step,"
            f" {in_words(self.needs.evaluation_seconds)} for the evaluation at the end"
        )

    def _memory(self) -> str:
        needed = "not known, " if self.needs is None else f"about {_gib(self.needs.memory)} "
        return f"{needed}of {_gib(self.memory_there)}"

    def _files(self) -> str:
        size = "" if self.needs is None else f", about {max(1, round(self.needs.disk / 2**20)):,} MiB"
        return f"{self.folder}{size}"

    def _notes(self) -> Iterator[str]:
        if self.untried:
            yield f"Time and memory are not known: {self.untried}."
        for warning in self.warnings:
            yield f"Warning: {warning}"


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
        network=f"{config.backbone.name}{_width(config)}, {config.data.image_size} px, {config.gating.name}",
        recipe=f"{config.objective.name}, {config.optimizer.name}, learning rate {config.optimizer.lr:g}",
        views=_views(config),
        machine=str(machine),
        epochs=training.epochs,
        steps_per_epoch=steps_per_epoch,
        steps=steps,
        batch_size=training.batch_size,
        needs=None if tried is None else _needs(tried, config, counts, steps, machine),
        untried=untried,
        memory_there=_memory_there(),
        folder=str(folder),
        disk_free=_disk_free(folder),
    )
    return replace(plan, warnings=tuple(_warnings(plan, config, machine)))


def _needs(tried: Rehearsal, config: RunConfig, counts: Counts, steps: int, machine: Machine) -> Needs:
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
    side, drawn = config.data.image_size, _drawn_bytes(config, machine)
    highest = max(drawn + tried.activation_bytes, BATCH * (tried.evaluation_bytes + 12 * side * side))
    kept = tried.resident_bytes + 2 * tried.shrunk_bytes  # those are put together from single ones
    return machine.processes * (_libraries() + weights + kept + highest) + workers_memory(tried, config, machine)


def workers_memory(tried: Rehearsal, config: RunConfig, machine: Machine) -> int:
    """Bytes of this machine's memory that the processes take which prepare images.

    They are none on a GPU, whose memory is another one, and where the training process holds all images.
    """
    workers = 0 if tried.resident_bytes or tried.device_bytes else config.training.workers
    return machine.processes * workers * (WORKER_BYTES + 2 * _drawn_bytes(config, machine))


def _drawn_bytes(config: RunConfig, machine: Machine) -> int:
    """Bytes of the views of a batch of one process."""
    pixels = sum(side * side for side in view_sizes(config))
    return 4 * 3 * pixels * (config.training.batch_size // machine.processes)


def disk(tried: Rehearsal, config: RunConfig, steps: int) -> int:
    """Bytes of the run's folder: the model, the resume points with one that is being written, and the metrics."""
    training = config.training
    kept = (training.keep_checkpoints + 1) * (tried.learner_bytes + tried.optimizer_bytes)
    return tried.encoder_bytes + kept + 600 * (steps // training.log_every + 1)


def _warnings(plan: Plan, config: RunConfig, machine: Machine) -> Iterator[str]:
    training, needs = config.training, plan.needs
    smaller = max(LEAST_BATCH, training.batch_size * plan.steps_per_epoch // STEPS_PER_EPOCH)
    if plan.steps_per_epoch < FEW_STEPS and smaller < training.batch_size:
        yield (
            f"an epoch is {_counted(plan.steps_per_epoch, 'step')}: lower --batch-size (now {training.batch_size}), to"
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
            f"the disk has {_mib(plan.disk_free)} free and the run takes {_mib(needs.disk)}: name an --output elsewhere, or"
            f" --training.keep_checkpoints 1 (now {training.keep_checkpoints})."
        )
    if needs.seconds > LONG and not machine.gpus:
        time = in_words(needs.seconds)
        yield f"this takes about {time} here: lower --epochs (now {training.epochs}), or --recipe fitted."


def _lack_of_memory(needs: Needs, there: int, config: RunConfig) -> str:
    batch, needed = config.training.batch_size, needs.memory
    if needs.workers_memory > needed / 2:
        workers = config.training.workers
        return f"this needs about {_gib(needed)} of memory, and there are {_gib(there)}: lower --workers (now {workers})."
    fits = 2 ** max(1, int(np.log2(max(2.0, batch * there / needed))))
    smaller = f"; {fits} may fit" if fits < batch else ""
    return (
        f"this needs about {_gib(needed)} of memory, and there are {_gib(there)}: lower --batch-size"
        f" (now {batch}{smaller}), --image-size (now {config.data.image_size}) or --width."
    )


class Noise(ImageSet):
    """Images of noise, which stand for images that are not at hand.

    Args:
        count: How many.
        side: Side of each, in pixels.
    """

    def __init__(self, count: int, side: int) -> None:
        self._count, self._side = count, side

    @property
    def labels(self) -> Labels | None:
        """There are none."""
        return None

    def __len__(self) -> int:
        return self._count

    def image(self, index: int) -> Image.Image:
        """The image of that number."""
        shape = (self._side, self._side, 3)
        return Image.fromarray(np.random.default_rng(index).integers(0, 256, shape, dtype=np.uint8))


def _memory_there() -> int:
    """Bytes of the GPU, or of the machine as far as this process may use it."""
    if torch.cuda.is_available():
        return int(torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory)
    return memory_of_the_machine()


def _libraries() -> int:
    """Bytes of memory that this process has taken so far, Python and torch above all."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return max(LIBRARIES_BYTES, pages * os.sysconf("SC_PAGE_SIZE"))
    except (OSError, ValueError, IndexError):  # not Linux
        return LIBRARIES_BYTES


def _disk_free(folder: Path) -> int:
    """Bytes that are free where a folder is, or is to be."""
    there = next((place for place in (folder.absolute(), *folder.absolute().parents) if place.exists()), Path("/"))
    return shutil.disk_usage(there).free


def _width(config: RunConfig) -> str:
    width: Mapping[str, Any] = config.backbone.model_dump()
    return f" of width {width['width']}" if "width" in width else ""


def _views(config: RunConfig) -> str:
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


def _pictures(counts: Counts) -> str:
    used = f"{counts.train:,} to train on, {counts.held_out + counts.calibration:,} held out"
    if not counts.summary:
        return used
    left_out = f"; {counts.why_left_out}" if counts.why_left_out else ""
    return f"{counts.summary}{left_out}{f'; within the limits {used}' if counts.limited else ''}"


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def _mib(size: float) -> str:
    return f"{size / 2**20:,.0f} MiB"


def _gib(size: float) -> str:
    return f"{size / 2**30:.1f} GiB"
