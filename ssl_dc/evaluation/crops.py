"""Augmented training images of a linear evaluation: random crops and flips, new ones in every epoch."""

from __future__ import annotations

from copy import copy
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.utils.data import Dataset

from ssl_dc.data.base import ImageSet
from ssl_dc.errors import ConfigError
from ssl_dc.seeds import derived_seed
from ssl_dc.views.pixels import Normalise

if TYPE_CHECKING:
    from ssl_dc.plugins.options import Colour

CROP_SCALE = (0.08, 1.0)
"""Smallest and largest share of an image's area that a crop shows, as in solo-learn's linear evaluation."""


class Crops(Dataset[Tensor]):
    """One random crop of each image, flipped half the time. It depends on seed, epoch and image number alone.

    Args:
        images: The images.
        image_size: Side of a crop, in pixels.
        mean: Mean of each channel, in [0, 1].
        std: Standard deviation of each channel, above 0.
        scale: Smallest and largest share of the image's area that a crop shows.
        seed: Seed of the crops, at least 0.
        epoch: The epoch, from 0.

    Raises:
        ConfigError: If ``scale`` is not two shares in ascending order.
    """

    def __init__(
        self,
        images: ImageSet,
        image_size: int,
        mean: Colour,
        std: Colour,
        *,
        scale: tuple[float, float] = CROP_SCALE,
        seed: int = 0,
        epoch: int = 0,
    ) -> None:
        if not 0 < scale[0] <= scale[1] <= 1:
            raise ConfigError(f"crop scale {scale[0]:g} {scale[1]:g}: allowed are two shares above 0, at most 1, ascending")
        # Imported here: torchvision doubles the time that a command takes to start, and most commands crop nothing.
        from torchvision.transforms.v2 import Compose, RandomHorizontalFlip, RandomResizedCrop

        self.images = images
        self.transform = Compose([RandomResizedCrop(image_size, scale), RandomHorizontalFlip(), Normalise(mean, std)])
        self.seed = seed
        self.epoch = epoch

    def of_epoch(self, epoch: int) -> Crops:
        """The crops of another epoch."""
        other = copy(self)
        other.epoch = epoch
        return other

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Tensor:
        image = self.images.image(index)
        with torch.random.fork_rng(devices=[]):
            # Not torch.manual_seed, which seeds the GPUs' generators too, and those fork_rng here does not put back.
            torch.default_generator.manual_seed(derived_seed(self.seed, self.epoch, index))
            crop: Tensor = self.transform(image)
        return crop


class CropsOfEpochs(Dataset[Tensor]):
    """The crops of all epochs, by epoch and image number.

    Args:
        crops: Those of any epoch.
    """

    def __init__(self, crops: Crops) -> None:
        self.crops = crops

    def __getitem__(self, key: tuple[int, int]) -> Tensor:
        epoch, image = key
        return self.crops.of_epoch(epoch)[image]
