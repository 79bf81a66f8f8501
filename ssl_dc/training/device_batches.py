"""Batches whose views are drawn as a whole, on the device that trains."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ssl_dc.config.schema import TrainingConfig
from ssl_dc.data.base import ImageSet, spread
from ssl_dc.training.batches import Batches, readable, rest_of_run, worker_options
from ssl_dc.training.sampling import GlobalBatches
from ssl_dc.views.base import BatchedViews
from ssl_dc.views.chances import chances

RESIDENT_BYTES = 2**30
"""Images of one size that take at most this much are kept on the device, as uint8."""


class DeviceBatches(Batches):
    """Batches of a recipe that draws the views of a whole batch.

    Images of one size that fit are kept on the device and cropped there; no process but the training's own is needed.
    Others are read and cropped by worker processes, and moved as uint8. Either way the views of an image depend on the
    run's seed, the epoch and the image alone.

    Args:
        images: What is trained on.
        views: Draws the views.
        count: Views of each image.
        training: Epochs, batch, accumulation, workers.
        seed: The run's seed.
        device: Where the views are to be.
    """

    def __init__(
        self,
        images: ImageSet,
        views: BatchedViews,
        count: int,
        training: TrainingConfig,
        seed: int,
        device: torch.device,
    ) -> None:
        self.images, self.views, self.count = images, views, count
        self.training, self.seed, self.device = training, seed, device

    @property
    def steps_per_epoch(self) -> int:
        """Whole global batches in the images."""
        return GlobalBatches.steps_per_epoch(len(self.images), self.training.batch_size)

    def rest(self, first_step: int) -> Iterator[Sequence[Tensor]]:
        """The micro-batches from an optimiser step on."""
        keys = rest_of_run(len(self.images), self.training, self.seed, first_step)
        pixels = resident(self.images, self.device)
        return self._cropped_in_workers(keys) if pixels is None else self._cropped_on_device(keys, pixels)

    def _cropped_on_device(self, keys: Iterator[list[tuple[int, int]]], pixels: Tensor) -> Iterator[Sequence[Tensor]]:
        for batch in keys:
            epoch, indices = batch[0][0], [index for _, index in batch]
            images = pixels[torch.tensor(indices).to(self.device, non_blocking=True)]
            yield [
                self._finished(self.views.crop_batch(images, number, drawn), number, drawn)
                for number, drawn in enumerate(self._chances(epoch, indices))
            ]

    def _cropped_in_workers(self, keys: Iterator[list[tuple[int, int]]]) -> Iterator[Sequence[Tensor]]:
        loader = DataLoader(
            _Crops(self.images, self.views, self.count, self.seed),
            batch_sampler=keys,  # type: ignore[arg-type]  # an iterator will do: it is gone through once
            **worker_options(self.training.workers),
        )
        for *crops, epoch, indices in readable(loader):
            drawn = self._chances(int(epoch[0]), indices.numpy())
            yield [
                self._finished(some.to(self.device, non_blocking=True), number, drawn[number])
                for number, some in enumerate(crops)
            ]

    def _finished(self, crops: Tensor, number: int, drawn: Tensor) -> Tensor:
        return self.views.finish(crops, number, drawn)

    def _chances(self, epoch: int, indices: Sequence[int]) -> list[Tensor]:
        """The random numbers of each view of some images."""
        return [chances(self.seed, epoch, indices, number, self.views.chances) for number in range(self.count)]


class _Crops(Dataset[tuple[object, ...]]):
    """The crops of all views of an image, by ``(epoch, index)``, and these two numbers."""

    def __init__(self, images: ImageSet, views: BatchedViews, count: int, seed: int) -> None:
        self.images, self.views, self.count, self.seed = images, views, count, seed

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, key: tuple[int, int]) -> tuple[object, ...]:
        epoch, index = key
        image = self.images.image(index)
        crops = []
        for number in range(self.count):
            drawn = chances(self.seed, epoch, [index], number, self.views.chances)[0]
            crops.append(self.views.crop(image, number, drawn))
        return (*crops, epoch, index)


def resident(images: ImageSet, device: torch.device) -> Tensor | None:
    """All images as one tensor (n, 3, H, W) uint8 on a device; None if they differ in size or take too much memory.

    Raises:
        DataError: If an image cannot be read.
    """
    sizes = {images.image(index).size for index in spread(len(images))}
    if len(sizes) > 1:
        return None
    width, height = sizes.pop()
    if 3 * width * height * len(images) > RESIDENT_BYTES:
        return None
    pixels = np.empty((len(images), height, width, 3), np.uint8)

    def read(index: int) -> bool:
        image = images.image(index)
        fits = image.size == (width, height)
        if fits:
            pixels[index] = np.asarray(image)
        return fits

    with ThreadPoolExecutor(torch.get_num_threads()) as pool:  # decoding holds no lock
        if not all(pool.map(read, range(len(images)), chunksize=256)):
            return None
    return torch.from_numpy(pixels).to(device).permute(0, 3, 1, 2)
