"""Batches whose views are drawn as a whole, on the device that trains."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ssl_dc.config.schema import TrainingConfig
from ssl_dc.data.base import ImageSet, spread
from ssl_dc.data.pictures import decoded_smaller
from ssl_dc.data.workers import loaded, prepare_worker
from ssl_dc.devices import pinned, without_wait
from ssl_dc.training.batches import Batches, BatchViews, RestOfRun, check_local_batch
from ssl_dc.training.sampling import GlobalBatches
from ssl_dc.views.base import BatchedViews
from ssl_dc.views.chances import chances

if TYPE_CHECKING:
    from PIL.Image import Image

RESIDENT_BYTES = 2**30
"""Images of one size that take at most this much are kept in memory, as uint8, where their views are drawn."""

AHEAD = 2
"""How many batches are drawn before a GPU needs them."""


class DeviceBatches(Batches):
    """Batches of a recipe that draws the views of a whole batch.

    Images of one size that fit are kept in memory, and no process but the training's own is needed. If a GPU trains, CPU
    threads draw their views, two batches ahead: to draw them on the GPU takes hundreds of small launches for a batch, and
    the GPU waits for these. Without workers, or with a recipe that is not fast on a CPU, the device that trains draws them.

    Other images are read and cropped by worker processes, once for all their views, and moved as uint8. A JPEG file is
    decoded at a reduced size if no crop would have to be enlarged for it. Either way the views of an image depend on the
    run's seed, the epoch and the image alone.

    Args:
        images: What is trained on.
        views: Draws the views.
        count: Views of each image.
        training: Epochs, batch, accumulation, workers.
        seed: The run's seed.
        device: Where the views are to be.

    Raises:
        ConfigError: If the batch cannot be divided evenly, or a process would take one image at a time.
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
        check_local_batch(training)

    @property
    def steps_per_epoch(self) -> int:
        """Whole global batches in the images."""
        return GlobalBatches.steps_per_epoch(len(self.images), self.training.batch_size)

    def prepare(self) -> None:
        """Let the images get ready."""
        self.images.prepare()

    def first_image(self, first_step: int) -> Image:
        """The first image of this process from an optimiser step on."""
        keys = RestOfRun(self.images, self.training, self.seed, first_step)
        return self.images.image(next(iter(keys))[0][1])

    def rest(self, first_step: int) -> Iterator[BatchViews]:
        """The micro-batches from an optimiser step on."""
        keys = RestOfRun(self.images, self.training, self.seed, first_step)
        ahead = self.device.type == "cuda" and self.training.workers > 0 and self.views.fast_on_cpu
        pixels = resident(self.images, torch.device("cpu") if ahead else self.device)
        if pixels is None:
            return self._cropped_in_workers(keys)
        return self._drawn_ahead(keys, pixels) if ahead else (self._drawn(batch, pixels) for batch in keys)

    def _drawn(self, batch: Sequence[tuple[int, int]], pixels: Tensor) -> list[Tensor]:
        """The views of a batch of ``(epoch, index)``, drawn where the pixels are."""
        epoch, indices = batch[0][0], [index for _, index in batch]
        images = pixels[without_wait(torch.tensor(indices), pixels.device)]
        return [self.views.view_batch(images, number, drawn) for number, drawn in enumerate(self._chances(epoch, indices))]

    def _drawn_ahead(self, keys: RestOfRun, pixels: Tensor) -> Generator[BatchViews, None, None]:
        """Views that a thread draws on the CPU, with ``training.workers`` threads, while the device trains."""

        def draw(batch: Sequence[tuple[int, int]]) -> list[Tensor]:
            return [pinned(view, self.device) for view in self._drawn(batch, pixels)]

        drawn: deque[Future[list[Tensor]]] = deque()
        threads = torch.get_num_threads()
        pool = ThreadPoolExecutor(1, initializer=torch.set_num_threads, initargs=(self.training.workers,))
        try:
            for batch in keys:
                drawn.append(pool.submit(draw, batch))
                if len(drawn) > AHEAD:
                    yield self._moved(drawn.popleft().result())
            while drawn:
                yield self._moved(drawn.popleft().result())
        finally:
            pool.shutdown(cancel_futures=True)
            torch.set_num_threads(threads)  # part of what the thread has set is of the whole process

    def _moved(self, views: Sequence[Tensor]) -> list[Tensor]:
        """Views, brought to the device without waiting."""
        return [view.to(self.device, non_blocking=True) for view in views]

    def _cropped_in_workers(self, keys: RestOfRun) -> Iterator[BatchViews]:
        self.views.prepare()
        loader = DataLoader(
            Crops(self.images, self.views, self.count, self.seed),
            batch_sampler=keys,
            num_workers=self.training.workers,
            pin_memory=self.device.type == "cuda",
            worker_init_fn=prepare_worker,
        )
        for crops, epochs, indices in loaded(loader):
            drawn = self._chances(int(epochs[0]), indices.numpy())
            yield [
                self.views.finish(some.to(self.device, non_blocking=True), number, drawn[number])
                for number, some in enumerate(crops)
            ]

    def _chances(self, epoch: int, indices: npt.ArrayLike) -> list[Tensor]:
        """The random numbers of each view of some images."""
        return [chances(self.seed, epoch, indices, number, self.views.chances) for number in range(self.count)]


class Crops(Dataset[Any]):
    """By ``(epoch, index)``: the crops of all views of an image, each (3, S, S) uint8, and these two numbers.

    Args:
        images: The images.
        views: Crops an image.
        count: Views of each image.
        seed: The run's seed.
    """

    def __init__(self, images: ImageSet, views: BatchedViews, count: int, seed: int) -> None:
        self.images, self.views, self.count, self.seed = images, views, count, seed

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, key: tuple[int, int]) -> tuple[list[Tensor], int, int]:
        epoch, index = key
        with decoded_smaller(self.views.least_size):
            image = self.images.image(index)
        drawn = (chances(self.seed, epoch, [index], number, self.views.chances)[0] for number in range(self.count))
        return [self.views.crop(image, number, some) for number, some in enumerate(drawn)], epoch, index


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
