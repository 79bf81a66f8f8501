"""Recipes that fit the pictures and the machine.

The paper's recipe is made for 100,000 images and more on GPUs. A few hundred photographs on a laptop need another: smaller
pictures, a narrower network, smaller batches, AdamW. This file holds the whole rule; ``docs/data.md`` has it as a table.
What is chosen are plain settings. They rank above the defaults and below all that the user says, and are saved in the
run's config, so that a resumed run does not choose again.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch

from ssl_dc.assemble import build_data_set
from ssl_dc.config import Layer, Resolved, RunConfig, resolve
from ssl_dc.config.layers import merged
from ssl_dc.data.base import ImageSet, Splits, spread
from ssl_dc.data.parquet_files import memory_of_the_machine
from ssl_dc.data.subsets import open_splits
from ssl_dc.errors import DataError
from ssl_dc.training_cost import MACS_PER_CORE, MACS_PER_GPU, training_macs

MANY = 100_000
"""From so many pictures on, a training on GPUs takes the paper's recipe."""

STEPS_PER_EPOCH = 8
"""An epoch has about this many steps or more, as far as a batch of :data:`LEAST_BATCH` allows."""
LEAST_BATCH, LARGEST_BATCH = 16, 256
MOST_EPOCHS = 500
"""The paper's number."""
FEW_STEPS = 10_000
"""In fewer steps than this the logits of gates stay smaller than the noise of the published recipe."""
VIEW_SECONDS = 0.003
"""Seconds that a CPU core takes to draw the views of an image, without reading it."""
LARGE = 0.5
"""Images of more megapixels than this are shrunk once, and kept in memory as far as a quarter of it takes them."""
MEGAPIXEL_SECONDS = 0.012
"""Seconds that a CPU core takes to decode a million pixels."""


@dataclass(frozen=True)
class Pictures:
    """What a recipe has to know of the training images.

    Attributes:
        count: How many there are.
        side: Median of their shorter sides, in pixels.
        megapixels: Millions of pixels of an image, on average.
        alike: Whether they all have one size, as far as a sample tells.
    """

    count: int
    side: int
    megapixels: float
    alike: bool

    def __str__(self) -> str:
        return f"{self.count:,} pictures of about {self.side} px"


@dataclass(frozen=True)
class Machine:
    """What a recipe has to know of the machine.

    Attributes:
        cores: CPU cores that this process may use, at least 1.
        memory: Bytes of memory that it may use.
        gpus: GPUs that train; 0 on a CPU.
        processes: Processes that train.
        bf16: Whether the GPUs compute in bf16.
    """

    cores: int
    memory: int = 8 * 2**30
    gpus: int = 0
    processes: int = 1
    bf16: bool = False

    def __str__(self) -> str:
        count, kind = (self.gpus, "GPU") if self.gpus else (self.cores, "CPU core")
        return f"{count} {kind}{'' if count == 1 else 's'}"


@dataclass(frozen=True)
class Fitted:
    """A config that fits, and the data that it was fitted to.

    Attributes:
        resolved: The config, and where each setting comes from.
        splits: The data set, opened; None if it was not needed.
    """

    resolved: Resolved
    splits: Splits | None


def fit(layers: Sequence[Layer], *, pictures: int | None = None, machine: Machine | None = None) -> Fitted:
    """The complete config of a training. Where its data set asks for it, the recipe is fitted to the pictures.

    Args:
        layers: What the user says, from the weakest to the strongest. The key ``recipe`` is ``fitted``, ``paper``, or left
            to the data set.
        pictures: Plan for so many training images, of unknown size, without opening the data set.
        machine: The machine; by default this one.

    Raises:
        ConfigError: If the config is not valid.
        DataError: If the pictures are needed and cannot be found.
    """
    fixed = resolve(layers)
    nowhere = fixed.recipe is None and fixed.config.data.root is None and pictures is None
    if not _is_fitted(fixed) or nowhere:
        return Fitted(fixed, None)
    machine = machine or this_machine()
    splits = None
    if pictures is None:
        splits = open_splits(build_data_set(fixed.config))
        if not len(splits.train):
            return Fitted(fixed, splits)
        seen = survey(splits.train)
    else:
        seen = Pictures(pictures, fixed.config.data.image_size, 0.0, alike=False)
    return Fitted(fitted(layers, seen, machine), splits)


def fitted(layers: Sequence[Layer], pictures: Pictures, machine: Machine) -> Resolved:
    """The complete config for some pictures on a machine, each choice with its reason.

    The choices build on one another and on what the user says: a wider network gets fewer epochs.
    """
    if machine.gpus and pictures.count >= MANY:
        return resolve(layers, data_recipe=_layer([*_size(layers, pictures, machine), *_paper(layers, pictures, machine)]))
    choices = [*_size(layers, pictures, machine), *_batch(layers, pictures, machine)]
    config = resolve(layers, data_recipe=_layer(choices)).config
    choices += _optimizer(config)
    choices += _length(config, pictures, machine)
    config = resolve(layers, data_recipe=_layer(choices)).config
    choices += _gates(config, pictures)
    return resolve(layers, data_recipe=_layer(choices))


Choice = tuple[str, Any, str]
"""A key, its value, and the reason."""


def _layer(choices: Sequence[Choice]) -> Layer:
    return Layer({key: value for key, value, _ in choices}, {key: f"fitted recipe: {reason}" for key, _, reason in choices})


def _size(layers: Sequence[Layer], pictures: Pictures, machine: Machine) -> Iterator[Choice]:
    """The size of the images, which a setting of the user's decides if there is one, and what follows from it."""
    largest = 224 if machine.gpus else 64
    fits = max(size for size in (32, 64, 96, 128, 160, 224) if size <= min(max(pictures.side * 4 // 3, 32), largest))
    side = merged(layers).values.get("data.image_size", fits)
    if not isinstance(side, int):
        side = fits  # what is wrong with it is said when all is resolved
    stem = "imagenet" if side >= 96 else "strided" if side == 64 or not machine.gpus else "cifar"
    where = f"pictures of about {pictures.side} px on {machine}"
    yield "data.image_size", fits, where
    yield "backbone.width", 64 if machine.gpus else 16, f"on {machine}"
    yield "backbone.stem", stem, f"{side} px on {machine}"
    if machine.gpus or (pictures.alike and pictures.side <= side):
        yield (
            "views.name",
            "batched",
            "a whole batch at once is faster" + (" on a GPU" if machine.gpus else f" at {side} px"),
        )
    if machine.gpus:
        yield "training.precision", "bf16" if machine.bf16 else "fp16", f"on {machine}"
    workers = min(16, machine.cores // machine.gpus) if machine.gpus else min(4, max(1, machine.cores // 2))
    kept = _shrunk(pictures, side, machine)
    if kept is not None:
        yield "data.shrink", kept, f"pictures of {pictures.megapixels:.1f} megapixels take long to decode"
    yield "training.workers", max(1, workers), f"{machine.cores} CPU core{'' if machine.cores == 1 else 's'}"


def _shrunk(pictures: Pictures, image_size: int, machine: Machine) -> int | None:
    """To which shorter side large pictures are shrunk, if so many of them fit into memory: each process keeps all."""
    if pictures.megapixels <= LARGE:
        return None
    for side in (3 * image_size, 2 * image_size):
        shape = (pictures.megapixels * 1e6 / pictures.side**2) * side**2
        if side < pictures.side and 3 * shape * pictures.count * machine.processes <= machine.memory / 4:
            return side
    return None


def _paper(layers: Sequence[Layer], pictures: Pictures, machine: Machine) -> Iterator[Choice]:
    """Batch, optimiser and length of the paper."""
    reason = f"{pictures.count:,} pictures on {machine}: the paper's recipe"
    yield "training.epochs", MOST_EPOCHS, reason
    yield "training.batch_size", _shared(512, layers, machine), reason
    yield "optimizer.name", "lars", reason
    yield "optimizer.lr", 0.3, reason


def _batch(layers: Sequence[Layer], pictures: Pictures, machine: Machine) -> Iterator[Choice]:
    """The batch."""
    size = LARGEST_BATCH
    while size > LEAST_BATCH and size * STEPS_PER_EPOCH > pictures.count:
        size //= 2
    batch = _shared(min(size, max(pictures.count, 2)), layers, machine)
    yield "training.batch_size", batch, f"{pictures.count:,} pictures, {max(1, pictures.count // batch)} steps an epoch"


def _optimizer(config: RunConfig) -> Iterator[Choice]:
    """AdamW, its rate for the batch, and an expander that the batch can fill."""
    batch = config.training.batch_size
    yield "optimizer.name", "adamw", "a short run: LARS needs long ones"
    yield "optimizer.lr", 2e-3, "a short run"
    yield "training.warmup_share", 0.1, "a short run"
    yield "objective.expander_width", 256 if batch < 128 else 512, f"batches of {batch}"


def _length(config: RunConfig, pictures: Pictures, machine: Machine) -> Iterator[Choice]:
    """As many epochs as fit into the time that so many pictures are worth."""
    most = 240 if machine.gpus else 50
    minutes = min(most, max(10, pictures.count // 400))
    speed = images_per_second(config, pictures, machine)
    shrinking = pictures.count * MEGAPIXEL_SECONDS * pictures.megapixels / machine.cores if config.data.shrink else 0.0
    epochs = int((minutes * 60 - shrinking) * speed / pictures.count)
    epochs = max(1, min(epochs, MOST_EPOCHS))
    takes = max(1, round((shrinking + epochs * pictures.count / speed) / 60))
    unit = "minute" if takes == 1 else "minutes"
    yield "training.epochs", epochs, f"{pictures} on {machine}: about {takes} {unit}"


def _gates(config: RunConfig, pictures: Pictures) -> Iterator[Choice]:
    """Gates without noise in a run that is too short for it."""
    steps = config.training.epochs * (pictures.count // config.training.batch_size)
    if steps < FEW_STEPS:
        yield "gating.noise", 0.0, f"{steps:,} steps are too few to train gates through noise"


def images_per_second(config: RunConfig, pictures: Pictures, machine: Machine) -> float:
    """A rough guess of how many images are trained on in a second."""
    macs = training_macs(config)
    drawn = VIEW_SECONDS + (0.0 if config.data.shrink else MEGAPIXEL_SECONDS * pictures.megapixels)
    if machine.gpus:
        return min(machine.gpus * MACS_PER_GPU / macs, machine.cores / drawn)
    return machine.cores / (macs / MACS_PER_CORE + drawn)


def _shared(batch: int, layers: Sequence[Layer], machine: Machine) -> int:
    """A batch that the processes and the micro-batches that the user asks for can share, two images or more each."""
    accumulation = merged(layers).values.get("training.accumulation", 1)
    parts = machine.processes * (accumulation if isinstance(accumulation, int) and accumulation > 0 else 1)
    return max(2, batch // parts) * parts


def _is_fitted(fixed: Resolved) -> bool:
    return fixed.recipe == "fitted" or (fixed.recipe is None and fixed.config.data.fitted)


def survey(images: ImageSet) -> Pictures:
    """What a recipe has to know of some images, at least one. The sizes of at most 64 are read, from their heads."""
    sizes = []
    for index in spread(len(images)):
        try:
            sizes.append(images.size(index))
        except DataError:
            continue  # the training says what it does about images that cannot be read
    shorter = median(map(min, sizes)) if sizes else 224
    megapixels = sum(width * height for width, height in sizes) / max(1, len(sizes)) / 1e6
    return Pictures(len(images), max(1, round(shorter)), megapixels, alike=len(set(sizes)) == 1)


def this_machine() -> Machine:
    """This machine. Of a launch, each process counts the processes that train together."""
    processes = int(world) if (world := os.environ.get("WORLD_SIZE", "1")).isdecimal() else 1
    if not torch.cuda.is_available():
        return Machine(usable_cores(), memory_of_the_machine(), processes=max(1, processes))
    processes = max(1, processes)
    return Machine(usable_cores(), memory_of_the_machine(), processes, processes, torch.cuda.is_bf16_supported())


def usable_cores() -> int:
    """CPU cores that this process may use: by its affinity, and by the limit of its control group."""
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # only Linux has it
        cores = os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return max(1, min(cores, round(int(quota) / int(period))))
    except (OSError, ValueError):  # no control groups, or no limit ("max")
        return cores
