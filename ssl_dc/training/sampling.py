"""Which images a training step sees, and the views of each.

All randomness is a function of the run's seed, the epoch and the image's number. It does not matter how many workers load,
how many processes train, or where a run was resumed.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from ssl_dc.data.base import ImageSet
from ssl_dc.errors import ConfigError

if TYPE_CHECKING:
    from PIL.Image import Image

    from ssl_dc.views.base import Views


class ViewPairs(Dataset[tuple[Tensor, Tensor]]):
    """Two views of each image, chosen by ``(epoch, index)``: a function of these and the seed alone.

    Args:
        images: The images.
        views: Draws a view.
        seed: The run's seed, at least 0.
    """

    def __init__(self, images: ImageSet, views: Views, seed: int) -> None:
        self.images = images
        self.views = views
        self.seed = seed

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, Tensor]:
        epoch, index = key
        image = self.images.image(index)
        with torch.random.fork_rng(devices=[]):
            return self._view(image, epoch, index, 0), self._view(image, epoch, index, 1)

    def _view(self, image: Image, epoch: int, index: int, number: int) -> Tensor:
        mixed = np.random.SeedSequence((self.seed, epoch, index, number)).generate_state(1, np.uint64)
        # Not torch.manual_seed: that also seeds the GPUs' generators, which fork_rng above does not put back,
        # and takes as long as half a view.
        torch.default_generator.manual_seed(int(mixed[0]))
        return self.views.view(image, number)


def local_batch(batch_size: int, world_size: int, accumulation: int) -> int:
    """Images that one process takes at once.

    Args:
        batch_size: Images in a global batch.
        world_size: Number of processes.
        accumulation: Micro-batches in an optimiser step.

    Raises:
        ConfigError: If the batch cannot be divided evenly.
    """
    if batch_size % (world_size * accumulation):
        raise ConfigError(
            f"training.batch_size {batch_size} cannot be divided evenly among "
            f"{world_size} process(es) with {accumulation} micro-batch(es) each."
        )
    return batch_size // (world_size * accumulation)


class GlobalBatches(Sampler[list[tuple[int, int]]]):
    """Says which images of an epoch are in which batch, for one process of several.

    The images are shuffled by seed and epoch and cut into global batches, one an optimiser step; what is left
    over sits the epoch out. A global batch is cut into micro-batches, a micro-batch into one slice a process.
    Nothing is remembered: a sampler made to start at a step yields just what others yield from there.

    Iterating gives one list of ``(epoch, index)`` for each micro-batch of each step, for a ``DataLoader``'s
    ``batch_sampler``.

    Args:
        n: Number of images.
        batch_size: Images in a global batch, over all processes and micro-batches.
        seed: The run's seed, at least 0.
        epoch: The epoch, from 0.
        world_size: Number of processes.
        rank: This process's number among them.
        accumulation: Micro-batches in an optimiser step.
        start_step: Steps of this epoch to leave out, done before.

    Raises:
        ConfigError: If the batch is larger than the data set, or cannot be divided evenly.
    """

    def __init__(
        self,
        n: int,
        batch_size: int,
        seed: int,
        *,
        epoch: int,
        world_size: int = 1,
        rank: int = 0,
        accumulation: int = 1,
        start_step: int = 0,
    ) -> None:
        self.local_batch = local_batch(batch_size, world_size, accumulation)
        self.steps = range(start_step, self.steps_per_epoch(n, batch_size))
        self.n = n
        self.batch_size = batch_size
        self.seed = seed
        self.epoch = epoch
        self.rank = rank
        self.accumulation = accumulation
        self.micro_batch = batch_size // accumulation

    @staticmethod
    def steps_per_epoch(n: int, batch_size: int) -> int:
        """Number of whole global batches in n images.

        Raises:
            ConfigError: If there is none.
        """
        if batch_size > n:
            raise ConfigError(
                f"training.batch_size {batch_size} is larger than the training set; with {n} images it may be at most {n}."
            )
        return n // batch_size

    def __len__(self) -> int:
        """Number of micro-batches that iterating gives."""
        return len(self.steps) * self.accumulation

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        order = np.random.default_rng((self.seed, self.epoch)).permutation(self.n)
        for step in self.steps:
            for micro in range(self.accumulation):
                first = step * self.batch_size + micro * self.micro_batch + self.rank * self.local_batch
                yield [(self.epoch, index) for index in order[first : first + self.local_batch].tolist()]
