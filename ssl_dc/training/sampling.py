"""Which images a training step sees, and the views of each image.

All randomness depends on the run's seed, the epoch and the image's number alone. The number of workers, the number of
processes and the step at which a run was resumed do not matter.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from ssl_dc.data.base import Blocks, ImageSet
from ssl_dc.errors import ConfigError

if TYPE_CHECKING:
    from PIL.Image import Image

    from ssl_dc.views.base import Views


class ViewSets(Dataset[tuple[Tensor, ...]]):
    """The views of each image, chosen by ``(epoch, index)``. They depend on the seed, the epoch and the index alone.

    Args:
        images: The images.
        views: Draws a view.
        seed: The run's seed, at least 0.
        count: Number of views of each image, at least 1.
    """

    def __init__(self, images: ImageSet, views: Views, seed: int, count: int) -> None:
        self.images = images
        self.views = views
        self.seed = seed
        self.count = count

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, ...]:
        epoch, index = key
        image = self.images.image(index)
        with torch.random.fork_rng(devices=[]):
            return tuple(self._view(image, epoch, index, number) for number in range(self.count))

    def _view(self, image: Image, epoch: int, index: int, number: int) -> Tensor:
        mixed = np.random.SeedSequence((self.seed, epoch, index, number)).generate_state(1, np.uint64)
        # torch.manual_seed would also seed the GPUs' generators, which fork_rng above does not restore, and would take as
        # long as half a view.
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
            f"{world_size} process(es) with {accumulation} micro-batch(es) each; {_allowed(batch_size, accumulation)}."
        )
    return batch_size // (world_size * accumulation)


def _allowed(batch_size: int, accumulation: int) -> str:
    """The numbers of processes that can share a batch, two images or more to each at once."""
    shares = batch_size // accumulation
    numbers = [number for number in range(1, shares // 2 + 1) if batch_size % (number * accumulation) == 0]
    if not numbers:
        return "no number of processes can share it"
    shown = ", ".join(map(str, numbers if len(numbers) <= 12 else [*numbers[:11], "..."]))
    return f"allowed: {shown} process{'' if numbers == [1] else 'es'}"


class ShuffledBlocks:
    """The order of the images of an epoch where they lie in blocks: shuffled by block and buffer.

    The blocks are shuffled, and taken a few at a time. The images of these few are shuffled into one another. The order
    depends on the blocks, the seed and the epoch alone, and any part of it can be had without the parts before: a resumed
    run need not read what it has seen.

    Args:
        n: Number of images.
        blocks: Where they lie.
        seed: The run's seed.
        epoch: The epoch, from 0.
    """

    def __init__(self, n: int, blocks: Blocks, seed: int, epoch: int) -> None:
        self._key = (seed, epoch)
        order = np.random.default_rng(self._key).permutation(len(blocks.starts))
        self._starts, self._together = blocks.starts[order], blocks.together
        self._lengths = np.diff(blocks.starts, append=n)[order]
        self._ends = np.add.reduceat(self._lengths, np.arange(0, len(order), self._together)).cumsum()
        self._read: tuple[int, npt.NDArray[np.int64]] = (-1, np.empty(0, np.int64))

    def __getitem__(self, part: slice) -> npt.NDArray[np.int64]:
        """The numbers of the images from a place of the order to another."""
        found, place = [], part.start
        while place < part.stop:
            buffer = int(np.searchsorted(self._ends, place, side="right"))
            first = int(self._ends[buffer - 1]) if buffer else 0
            piece = self._buffer(buffer)[place - first : part.stop - first]
            found.append(piece)
            place += len(piece)
        return np.concatenate(found)

    def _buffer(self, number: int) -> npt.NDArray[np.int64]:
        """The images of some blocks, shuffled; those of the last call are kept."""
        if self._read[0] != number:
            some = slice(number * self._together, (number + 1) * self._together)
            lying = zip(self._starts[some].tolist(), self._lengths[some].tolist(), strict=True)
            images = np.concatenate([np.arange(start, start + length, dtype=np.int64) for start, length in lying])
            self._read = number, np.random.default_rng((*self._key, 1 + number)).permutation(images)
        return self._read[1]


def order_of_epoch(n: int, blocks: Blocks | None, seed: int, epoch: int) -> npt.NDArray[np.int64] | ShuffledBlocks:
    """The order of the images of an epoch, of which slices can be taken: all shuffled, or by block and buffer."""
    if blocks is None:
        return np.random.default_rng((seed, epoch)).permutation(n)
    return ShuffledBlocks(n, blocks, seed, epoch)


class GlobalBatches(Sampler[list[tuple[int, int]]]):
    """The images of each batch of an epoch, for one process of several.

    The images are shuffled by seed and epoch (:func:`order_of_epoch`) and cut into global batches, one for each optimiser
    step. Images that do not fill a batch are not used in this epoch. A global batch is cut into micro-batches, and a
    micro-batch into one slice for each process. A sampler keeps no state: one that starts at a step yields what another
    yields from that step on.

    Iterating gives one list of ``(epoch, index)`` for each micro-batch of each step, for the ``batch_sampler`` of a
    ``DataLoader``.

    Args:
        n: Number of images.
        batch_size: Images in a global batch, over all processes and micro-batches.
        seed: The run's seed, at least 0.
        epoch: The epoch, from 0.
        world_size: Number of processes.
        rank: This process's number among them.
        accumulation: Micro-batches in an optimiser step.
        start_step: Steps of this epoch that were done before and are left out.
        blocks: Where the images lie, if their order is to follow that.

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
        blocks: Blocks | None = None,
    ) -> None:
        self.local_batch = local_batch(batch_size, world_size, accumulation)
        self.steps = range(start_step, self.steps_per_epoch(n, batch_size))
        self.n, self.blocks = n, blocks
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
        if n < 2 <= batch_size:
            raise ConfigError(f"a training needs at least 2 images, and there {'is 1' if n else 'are none'}.")
        if batch_size > n:
            raise ConfigError(
                f"training.batch_size {batch_size} is larger than the training set; with {n} images it may be at most {n}:"
                f" --batch-size {n}."
            )
        return n // batch_size

    def __len__(self) -> int:
        """Number of micro-batches that iterating gives."""
        return len(self.steps) * self.accumulation

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        order = order_of_epoch(self.n, self.blocks, self.seed, self.epoch)
        for step in self.steps:
            for micro in range(self.accumulation):
                first = step * self.batch_size + micro * self.micro_batch + self.rank * self.local_batch
                yield [(self.epoch, index) for index in order[first : first + self.local_batch].tolist()]
