"""The batches of a training: from images and a views recipe, or from the caller's own loader."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from ssl_dc.config.schema import TrainingConfig
from ssl_dc.data.base import ImageSet
from ssl_dc.data.workers import loaded, prepare_worker
from ssl_dc.distributed import rank, world_size
from ssl_dc.errors import ConfigError
from ssl_dc.training.sampling import GlobalBatches, ViewSets, local_batch
from ssl_dc.views.base import Views

if TYPE_CHECKING:
    from PIL.Image import Image

BatchViews = Sequence[Tensor]
"""The views of a batch, each (N, 3, H, W): one for each route."""


class Loader(Protocol):
    """A loader of the caller's own, such as a :class:`torch.utils.data.DataLoader`."""

    def __len__(self) -> int:
        """Number of batches in an epoch."""

    def __iter__(self) -> Iterator[BatchViews]:
        """The batches of an epoch. Each has one view (N, 3, H, W) for each route."""


class Batches(ABC):
    """The micro-batches of a run."""

    @property
    @abstractmethod
    def steps_per_epoch(self) -> int:
        """Optimiser steps in an epoch."""

    @abstractmethod
    def rest(self, first_step: int) -> Iterator[BatchViews]:
        """The micro-batches from an optimiser step to the end of the run."""

    def prepare(self) -> None:  # noqa: B027  # a caller's loader needs nothing
        """Called before the first batch is asked for."""

    def first_image(self, first_step: int) -> Image | None:  # noqa: ARG002  # here there are no images
        """The first image of this process from an optimiser step on; None if the batches come from a caller's loader.

        Raises:
            DataError: If the image cannot be read.
        """
        return None

    def first_views(self, first_step: int) -> BatchViews:  # noqa: ARG002
        """The views of that image, each (3, H, W); none if views are drawn for whole batches only."""
        return ()


class ViewBatches(Batches):
    """Views of images, drawn in worker processes. They depend on the seed and the step alone.

    Args:
        images: The training images.
        views: Draws the views of an image.
        training: Epochs, batch, accumulation, workers.
        seed: The run's seed.
        count: Number of views of each image.

    Raises:
        ConfigError: If the batch cannot be divided evenly, or a process would take one image at a time.
    """

    def __init__(self, images: ImageSet, views: Views, training: TrainingConfig, seed: int, count: int) -> None:
        self.view_sets = ViewSets(images, views, seed, count)
        self.training, self.seed = training, seed
        check_local_batch(training)

    @property
    def steps_per_epoch(self) -> int:
        """Number of whole global batches in the images."""
        return GlobalBatches.steps_per_epoch(len(self.view_sets), self.training.batch_size)

    def prepare(self) -> None:
        """Let the images get ready."""
        self.view_sets.images.prepare()

    def first_image(self, first_step: int) -> Image:
        """The first image of this process from an optimiser step on."""
        return self.view_sets.images.image(self._first_key(first_step)[1])

    def first_views(self, first_step: int) -> BatchViews:
        """The views of that image, each (3, H, W)."""
        return self.view_sets[self._first_key(first_step)]

    def _first_key(self, first_step: int) -> tuple[int, int]:
        return next(iter(RestOfRun(self.view_sets.images, self.training, self.seed, first_step)))[0]

    def rest(self, first_step: int) -> Iterator[BatchViews]:
        """The micro-batches from an optimiser step on; one loader serves all epochs."""
        loader = DataLoader(
            self.view_sets,
            batch_sampler=RestOfRun(self.view_sets.images, self.training, self.seed, first_step),
            num_workers=self.training.workers,
            pin_memory=torch.cuda.is_available(),
            worker_init_fn=prepare_worker,
        )
        yield from loaded(loader)


class LoaderBatches(Batches):
    """The batches of the caller's own loader, which is read once in each epoch.

    Each batch is one micro-batch of one process. The loader decides its size, its workers and the share of each process, in
    place of ``training.batch_size`` and ``training.workers``. A resumed run skips the batches that were done before. It
    continues exactly only if the loader gives the same batches again.

    Args:
        loader: Gives the batches.
        training: Epochs, accumulation.
        count: Number of views in a batch.

    Raises:
        ConfigError: If an epoch has fewer batches than a step needs.
    """

    def __init__(self, loader: Loader, training: TrainingConfig, count: int) -> None:
        if len(loader) < training.accumulation:
            raise ConfigError(f"a step takes {training.accumulation} batches of the loader, which has {len(loader)}")
        self.loader, self.training, self.count = loader, training, count

    @property
    def steps_per_epoch(self) -> int:
        """Number of whole steps in a pass over the loader."""
        return len(self.loader) // self.training.accumulation

    def rest(self, first_step: int) -> Iterator[BatchViews]:
        """The micro-batches from an optimiser step on. Batches that do not fill a step are not used in their epoch.

        Raises:
            ConfigError: If a batch has another number of views than there are routes, or the loader gives fewer batches
                than it says that it has.
        """
        first_epoch, done = divmod(first_step, self.steps_per_epoch)
        used = self.steps_per_epoch * self.training.accumulation
        for epoch in range(first_epoch, self.training.epochs):
            skipped = done * self.training.accumulation if epoch == first_epoch else 0
            given = skipped
            for batch in islice(self.loader, skipped, used):
                if len(batch) != self.count:
                    raise ConfigError(f"the loader's batch has {len(batch)} views, and there are {self.count} routes")
                given += 1
                yield batch
            if given < used:
                raise ConfigError(f"the loader says that it has {len(self.loader)} batches, and gave {given}")


def check_local_batch(training: TrainingConfig) -> None:
    """Check that each process gets two images or more at once, as batch norm needs.

    Raises:
        ConfigError: If the batch cannot be divided evenly, or a process would take one image at a time.
    """
    if local_batch(training.batch_size, world_size(), training.accumulation) < 2:
        raise ConfigError(
            f"training.batch_size {training.batch_size} leaves one image at once to each of {world_size()} process(es)"
            f" with {training.accumulation} micro-batch(es), but batch norm needs two: it must be at least"
            f" {2 * world_size() * training.accumulation}"
        )


class RestOfRun:
    """The batches from a step to the end of the run, as a batch sampler: lists of ``(epoch, index)``.

    Args:
        images: The training images.
        training: Epochs, batch, accumulation.
        seed: The run's seed.
        first_step: The first optimiser step.
    """

    def __init__(self, images: ImageSet, training: TrainingConfig, seed: int, first_step: int) -> None:
        self.images, self.training, self.seed, self.first_step = images, training, seed, first_step

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        training, n, blocks = self.training, len(self.images), self.images.blocks()
        steps_per_epoch = GlobalBatches.steps_per_epoch(n, training.batch_size)
        first_epoch, start_step = divmod(self.first_step, steps_per_epoch)
        for epoch in range(first_epoch, training.epochs):
            yield from GlobalBatches(
                n,
                training.batch_size,
                self.seed,
                epoch=epoch,
                world_size=world_size(),
                rank=rank(),
                accumulation=training.accumulation,
                start_step=start_step if epoch == first_epoch else 0,
                blocks=blocks,
            )
