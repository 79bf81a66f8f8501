"""Where a training's batches come from: images and a views recipe, or a loader of the caller's own."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from ssl_dc.config.schema import TrainingConfig
from ssl_dc.data.base import ImageSet
from ssl_dc.data.workers import loaded, prepare_worker
from ssl_dc.distributed import rank, world_size
from ssl_dc.errors import ConfigError
from ssl_dc.training.sampling import GlobalBatches, ViewPairs
from ssl_dc.views.base import Views

Views2 = Sequence[Tensor]
"""The two views of a batch, each (N, 3, H, W)."""


class Loader(Protocol):
    """What a loader of one's own must have: a :class:`torch.utils.data.DataLoader` does."""

    def __len__(self) -> int:
        """Number of batches in an epoch."""

    def __iter__(self) -> Iterator[Views2]:
        """The batches of an epoch: two views each, (N, 3, H, W)."""


class Batches(ABC):
    """The micro-batches of a run."""

    @property
    @abstractmethod
    def steps_per_epoch(self) -> int:
        """Optimiser steps in an epoch."""

    @abstractmethod
    def rest(self, first_step: int) -> Iterator[Views2]:
        """The micro-batches of the rest of the run, from an optimiser step on."""


class ViewBatches(Batches):
    """Views of images, drawn in processes of their own; a function of the seed and the step alone.

    Args:
        images: What is trained on.
        views: Draws the two views of an image.
        training: Epochs, batch, accumulation, workers.
        seed: The run's seed.
    """

    def __init__(self, images: ImageSet, views: Views, training: TrainingConfig, seed: int) -> None:
        self.pairs = ViewPairs(images, views, seed)
        self.training, self.seed = training, seed

    @property
    def steps_per_epoch(self) -> int:
        """Whole global batches in the images."""
        return GlobalBatches.steps_per_epoch(len(self.pairs), self.training.batch_size)

    def rest(self, first_step: int) -> Iterator[Views2]:
        """One loader serves all epochs."""
        loader = DataLoader(
            self.pairs,
            batch_sampler=_RestOfRun(self, first_step),
            num_workers=self.training.workers,
            pin_memory=torch.cuda.is_available(),
            worker_init_fn=prepare_worker,
        )
        yield from loaded(loader)


class LoaderBatches(Batches):
    """The batches of a loader of the caller's own, one pass an epoch.

    Its batches are what a process trains on at once: ``training.batch_size`` and ``training.workers`` are its business,
    and so is each process's share. A resumed run passes over the batches that were done before; it goes on exactly where
    it stopped only if the loader gives the same batches again.

    Args:
        loader: Gives two views a batch.
        training: Epochs, accumulation.

    Raises:
        ConfigError: If an epoch has fewer batches than a step needs.
    """

    def __init__(self, loader: Loader, training: TrainingConfig) -> None:
        if len(loader) < training.accumulation:
            raise ConfigError(f"a step takes {training.accumulation} batches of the loader, which has {len(loader)}")
        self.loader, self.training = loader, training

    @property
    def steps_per_epoch(self) -> int:
        """Whole steps in a pass over the loader."""
        return len(self.loader) // self.training.accumulation

    def rest(self, first_step: int) -> Iterator[Views2]:
        """A pass an epoch; what is left over when the last whole step is done sits the epoch out."""
        first_epoch, done = divmod(first_step, self.steps_per_epoch)
        used = self.steps_per_epoch * self.training.accumulation
        for epoch in range(first_epoch, self.training.epochs):
            skipped = done * self.training.accumulation if epoch == first_epoch else 0
            yield from islice(self.loader, skipped, used)


class _RestOfRun:
    """The batches of a run from a step on, as a batch sampler."""

    def __init__(self, batches: ViewBatches, first_step: int) -> None:
        self.batches, self.first_step = batches, first_step

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        batches = self.batches
        first_epoch, start_step = divmod(self.first_step, batches.steps_per_epoch)
        for epoch in range(first_epoch, batches.training.epochs):
            yield from GlobalBatches(
                len(batches.pairs),
                batches.training.batch_size,
                batches.seed,
                epoch=epoch,
                world_size=world_size(),
                rank=rank(),
                accumulation=batches.training.accumulation,
                start_step=start_step if epoch == first_epoch else 0,
            )
