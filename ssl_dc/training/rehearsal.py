"""What a training step takes: a few steps of the real network on a copy that is thrown away.

The run itself is not touched: the trainer that takes these steps is another one, and random generators are left as they
were. The steps are small ones; a step of the whole batch is reckoned from two of different size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import default_collate

from ssl_dc.assemble import build_views
from ssl_dc.budget_control import AdaptiveControl
from ssl_dc.config import RunConfig
from ssl_dc.data.base import ImageSet, spread
from ssl_dc.distributed import peer_failures, rank, world_size
from ssl_dc.errors import ConfigError, DataError, RunError, Terminated
from ssl_dc.evaluation_mode import evaluation_mode
from ssl_dc.routes import Route
from ssl_dc.seeds import kept_random_states
from ssl_dc.training.batches import BatchViews
from ssl_dc.training.device_batches import RESIDENT_BYTES
from ssl_dc.training.from_config import trainer_from_config
from ssl_dc.training.kept_memory import kept_memory
from ssl_dc.training.sampling import local_batch
from ssl_dc.training.trainer import Trainer
from ssl_dc.training_cost import PASSES
from ssl_dc.views.base import BatchedViews, Views

if TYPE_CHECKING:
    from PIL.Image import Image

Timer = Callable[[], float]
"""Seconds since some moment, as :func:`time.perf_counter`."""

SECONDS = 2.0
"""A timed step takes about this long, at most. Steps much smaller than the run's own are faster for each image, since their
memory is at hand."""
FEW = 4
"""Images of the steps that memory is measured on."""
MOST_DRAWN = 16
"""Images whose views are drawn, at most."""


@dataclass(frozen=True)
class Rehearsal:
    """What one process needs for a step, and what the trained things weigh.

    Attributes:
        step_seconds: Forward and backward passes and the optimiser, for the whole batch of the process.
        drawing_seconds: One CPU core, to draw the views of that batch; to read its images too, unless they are kept.
        forward_seconds: A route in evaluation mode, for one image: the gated one, if there is one.
        reading_seconds: One CPU core, to read one image.
        parameters: Number of trained parameters, with heads.
        encoder_bytes: The encoder's weights.
        learner_bytes: The weights of encoder and heads.
        optimizer_bytes: The optimiser's state.
        activation_bytes: What the forward pass of the largest micro-batch keeps for the backward pass.
        evaluation_bytes: What a forward pass in evaluation mode takes at its highest, for one image.
        dense_macs: Cost of the dense route, for one image.
        shrunk_bytes: The training images that are shrunk and kept in memory.
        resident_bytes: The training images, where they are kept on the device as a whole.
        device_bytes: The most memory that the steps took on a GPU, for the images in the largest of them; 0 on a CPU.
    """

    step_seconds: float
    drawing_seconds: float
    forward_seconds: float
    reading_seconds: float
    parameters: int
    encoder_bytes: int
    learner_bytes: int
    optimizer_bytes: int
    activation_bytes: int
    evaluation_bytes: int
    dense_macs: int
    shrunk_bytes: int
    resident_bytes: int
    device_bytes: int


def rehearse(
    config: RunConfig,
    images: ImageSet,
    timer: Timer,
    macs_per_second: float,
    macs_per_image: int,
    evaluation_batch: int,
) -> Rehearsal:
    """Take a few trial steps.

    In a launch of several processes all of them call it.

    Args:
        config: The run's config.
        images: The training images; some are read.
        timer: The clock.
        macs_per_second: About how fast this process trains; decides how large the steps may be.
        macs_per_image: MACs of training on one image.
        evaluation_batch: Images that evaluation takes at a time.

    Raises:
        ConfigError: If the config cannot be trained.
        TrialError: If a trial step fails, in whatever way.
    """
    with kept_random_states(), peer_failures():
        with _trial(but=ConfigError):
            trainer = trainer_from_config(config, images)
        with _trial(), kept_memory(trainer.accelerator.device):
            affordable = int(SECONDS * macs_per_second / macs_per_image)
            return _Rehearsing(config, images, trainer, timer).all(affordable, evaluation_batch)


class TrialError(RunError):
    """A trial step failed."""


@contextmanager
def _trial(but: type[Exception] | tuple[()] = ()) -> Iterator[None]:
    """Turn whatever is raised inside into a :class:`TrialError`, but for one kind: a stranger's part may raise anything."""
    try:
        yield
    except but:
        raise
    except Terminated:
        raise
    except (Exception, SystemExit) as error:
        raise TrialError(f"the trial step before training: {type(error).__name__}: {error}") from error


class _Rehearsing:
    """The trial steps of one trainer."""

    def __init__(self, config: RunConfig, images: ImageSet, trainer: Trainer, timer: Timer) -> None:
        self.config, self.images, self.trainer, self.timer = config, images, trainer, timer
        self.device = trainer.accelerator.device
        training = config.training
        self.micro_batch = local_batch(training.batch_size, world_size(), training.accumulation)
        self.batch = self.micro_batch * training.accumulation

    def all(self, affordable: int, evaluation_batch: int) -> Rehearsal:
        """Everything.

        Args:
            affordable: About how many images a timed step may have.
            evaluation_batch: Images that evaluation takes at a time.
        """
        trainer = self.trainer
        drawn = self._drawing()
        least = -(-trainer.learner.objective.least_batch // world_size())
        few = min(max(FEW, least), self.micro_batch)
        kept = self._kept_bytes(few)  # the first step is also the one that warms up
        largest = min(self.micro_batch, max(few, affordable))
        if self.device.type == "cuda":
            largest = self.micro_batch
            torch.cuda.reset_peak_memory_stats(self.device)
        step = self._step_seconds(few, largest)
        forward = self._forward_seconds(min(evaluation_batch, max(few, PASSES * affordable)))
        if isinstance(trainer.budget, AdaptiveControl):
            measured = self.micro_batch / AdaptiveControl.spacing(self.micro_batch * world_size())
            step += forward * measured / AdaptiveControl.EVERY
        weights = _bytes_of(trainer.learner.state_dict().values())
        areas = [size**2 for size in trainer.view_sizes]
        return Rehearsal(
            step_seconds=step,
            drawing_seconds=drawn.drawing * self.batch,
            forward_seconds=forward,
            reading_seconds=drawn.reading,
            parameters=sum(p.numel() for p in trainer.learner.parameters()),
            encoder_bytes=_bytes_of(trainer.learner.encoder.state_dict().values()),
            learner_bytes=weights,
            optimizer_bytes=_bytes_of(
                value for state in trainer.optimizer.state.values() for value in state.values() if isinstance(value, Tensor)
            ),
            activation_bytes=kept * self.micro_batch // few,
            evaluation_bytes=kept * areas[0] // (4 * few * sum(areas)),
            dense_macs=trainer.cost.dense_macs,
            shrunk_bytes=drawn.shrunk_bytes,
            resident_bytes=drawn.resident_bytes,
            device_bytes=torch.cuda.max_memory_allocated(self.device) if self.device.type == "cuda" else 0,
        )

    def _noise(self, images: int) -> BatchViews:
        """Views of so many images, of noise: what a step takes does not depend on what is in them.

        Each process has views of its own, as in a run: an objective may fail where images are alike.
        """
        generator = torch.Generator(self.device).manual_seed(rank())
        shapes = ((images, 3, side, side) for side in self.trainer.view_sizes)
        views = (torch.randn(shape, device=self.device, generator=generator) for shape in shapes)
        return [view.contiguous(memory_format=torch.channels_last) for view in views]

    def _seconds(self, work: Callable[[], object]) -> float:
        """How long some work takes; the shorter of two times, if it is short.

        Processes that train together do the same, whatever their clocks say.
        """
        times: list[float] = []
        while not times or (len(times) < 2 and times[0] < SECONDS / 4 and world_size() == 1):
            self._wait()
            began = self.timer()
            work()
            self._wait()
            times.append(self.timer() - began)
        return max(min(times), 0.0)

    def _warm_seconds(self, work: Callable[[], object]) -> float:
        """How long some work takes from its second time on: the first may compile what all others use."""
        work()
        return self._seconds(work)

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def _step_seconds(self, few: int, largest: int) -> float:
        """How long a step of the whole batch takes, by two steps of different size."""
        small, large = self._noise(few), self._noise(largest)
        of_large = self._seconds(partial(self.trainer.take_trial_step, large))
        per_image = of_large / largest
        fixed = 0.0
        if few < largest < self.batch:
            of_small = self._seconds(partial(self.trainer.take_trial_step, small))
            # no less than half of what the larger step takes for each image: small steps are noisy
            per_image = max((of_large - of_small) / (largest - few), per_image / 2)
            fixed = max(0.0, of_large - per_image * largest)
        return fixed + per_image * self.batch

    def _kept_bytes(self, images: int) -> int:
        """Bytes that the forward pass of so many images keeps for the backward pass, parameters left out."""
        with kept_for_backward(self.trainer.learner.parameters()) as kept:
            self.trainer.take_trial_step(self._noise(images))
        return sum(kept.values())

    def _forward_seconds(self, images: int) -> float:
        (view, *_) = self._noise(images)
        encoder = self.trainer.learner.encoder
        route = Route.GATED if self.config.gating.gates else Route.DENSE
        with torch.no_grad(), evaluation_mode(encoder):
            return self._seconds(lambda: encoder(view, route)) / images

    def _drawing(self) -> _Drawn:
        """What it takes to read images and to draw their views."""
        views, count = build_views(self.config), len(self.trainer.routes)
        numbers = spread(len(self.images))
        numbers = numbers[:: -(-len(numbers) // MOST_DRAWN)]
        with one_thread():
            try:
                pictures = [self.images.image(number) for number in numbers]
                reading = self._seconds(lambda: [self.images.image(number) for number in numbers]) / len(numbers)
            except DataError:
                return _Drawn(0.0, 0.0)  # the run itself says so
            sizes = [picture.size for picture in pictures]
            stored = 3 * len(self.images) * sum(width * height for width, height in sizes) // len(sizes)
            alike = len(set(sizes)) == 1
            if isinstance(views, BatchedViews) and alike and stored <= RESIDENT_BYTES:
                stacked = torch.from_numpy(np.stack([np.asarray(picture) for picture in pictures])).permute(0, 3, 1, 2)
                seconds = self._warm_seconds(partial(_draw_batch, views, stacked.to(self.device), count))
                return _Drawn(reading, seconds / len(pictures), resident_bytes=stored)
            drawing = self._warm_seconds(partial(_draw_one_by_one, views, pictures, count)) / len(pictures)
            if self.config.data.shrink is not None:
                return _Drawn(reading, drawing, shrunk_bytes=stored)
            return _Drawn(reading, drawing + reading)


@dataclass(frozen=True)
class _Drawn:
    """Seconds of one core for an image, and what is kept of all of them."""

    reading: float
    drawing: float
    shrunk_bytes: int = 0
    resident_bytes: int = 0


def _draw_one_by_one(views: Views, images: Sequence[Image], count: int) -> None:
    default_collate([[views.view(image, number) for number in range(count)] for image in images])


def _draw_batch(views: BatchedViews, images: Tensor, count: int) -> None:
    for number in range(count):
        drawn = torch.rand(len(images), views.chances)
        views.view_batch(images, number, drawn)


@contextmanager
def kept_for_backward(parameters: Iterable[Tensor]) -> Iterator[dict[int, int]]:
    """Note what a forward pass in here keeps for the backward pass.

    Args:
        parameters: The parameters of what computes; they are left out.

    Yields:
        Bytes of each storage that is kept, by its address.
    """
    weights = {p.untyped_storage().data_ptr() for p in parameters}
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        yield kept


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute with one thread, as the processes do that prepare images."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _bytes_of(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.nbytes for tensor in tensors)
