"""From the pixels of an image to the input of a network: resized and normalised."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL.Image import Resampling
from torch import Tensor

if TYPE_CHECKING:
    from PIL.Image import Image

    from ssl_dc.plugins.options import Colour


class Normalise:
    """Turns an RGB image into the input of a network: (value / 255 - mean) / std.

    Args:
        mean: The mean of each channel, in [0, 1].
        std: The standard deviation of each channel, above 0.
    """

    def __init__(self, mean: Colour, std: Colour) -> None:
        deviation = torch.tensor(std).view(3, 1, 1)
        self.scale = 1 / (255 * deviation)
        self.shift = -torch.tensor(mean).view(3, 1, 1) / deviation

    def __call__(self, image: Image) -> Tensor:
        """The image as float32 (3, height, width)."""
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)
        values = pixels.to(torch.float32, memory_format=torch.contiguous_format)
        return values.mul_(self.scale).add_(self.shift)


def evaluation_transform(image_size: int, mean: Colour, std: Colour) -> Callable[[Image], Tensor]:
    """The transform of images whose features are taken: RGB in, float32 (3, image_size, image_size) out.

    A square image is used whole and resized where needed, because its border may matter as much as its middle. Images of
    CIFAR and STL-10 thus stay as they are. For an image that is not square, the shorter side is resized and the middle
    square is used. There is no larger resize with a crop inside (as ImageNet's 256 and 224), so the result depends on
    ``image_size`` alone. Resizing is bicubic and antialiased, as in the views.
    """
    return partial(_evaluation_view, image_size=image_size, normalise=Normalise(mean, std))


def _evaluation_view(image: Image, image_size: int, normalise: Normalise) -> Tensor:
    if image.size != (image_size, image_size):
        image = _middle_square(image, image_size)
    return normalise(image)


def _middle_square(image: Image, side: int) -> Image:
    """The middle of an image whose shorter side is resized to ``side``: (side, side).

    It is what torchvision's resize and centre crop give. But nothing outside the square is resized: the whole of a strip of
    1 x 15,000 pixels would take gigabytes.
    """
    width, height = image.size
    shorter = min(width, height)
    resized_width, resized_height = side * width // shorter, side * height // shorter
    left, top = round((resized_width - side) / 2), round((resized_height - side) / 2)
    across, down = width / resized_width, height / resized_height
    box = (left * across, top * down, (left + side) * across, (top + side) * down)
    return image.resize((side, side), Resampling.BICUBIC, box=box)
