"""The augmentation recipe of the paper (method section 1)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from PIL import Image, ImageFilter
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as F

from ssl_dc.views.base import Views
from ssl_dc.views.cropping import CROP_ATTEMPTS, Box, drawn_box
from ssl_dc.views.options import StandardViewsOptions
from ssl_dc.views.pixels import Normalise

if TYPE_CHECKING:
    from ssl_dc.plugins.options import Colour

BLUR_SIGMA = (0.1, 2.0)
SOLARIZE_THRESHOLD = 128

Adjust = Callable[[Image.Image, float], Image.Image]


class RandomCrop:
    """Torchvision's ``RandomResizedCrop``, on PIL images, in half the time.

    :mod:`ssl_dc.views.cropping` says what it draws. This class and the next one draw all their random numbers at once and
    use them as Python numbers: on small images torchvision spends more time on tensors of one number than on pixels.

    Args:
        size: Side of the crop after resizing, in pixels.
        scale: Smallest and largest share of the image's area.
    """

    def __init__(self, size: int, scale: tuple[float, float]) -> None:
        self.size = size
        self.scale = scale

    def __call__(self, image: Image.Image) -> Image.Image:
        """A part of the image, resized to (size, size) with bicubic interpolation and antialiasing."""
        top, left, height, width = self.box(*image.size)
        resized: Image.Image = F.resized_crop(
            image, top, left, height, width, [self.size, self.size], InterpolationMode.BICUBIC, antialias=True
        )
        return resized

    def box(self, width: int, height: int) -> Box:
        """Top, left, height and width of a random part of an image of this size."""
        return drawn_box(torch.rand(CROP_ATTEMPTS, 4).tolist(), width, height, self.scale)


class ColourJitter:
    """Torchvision's ``ColorJitter``, on PIL images, in two thirds of the time.

    Brightness, contrast, saturation and hue are changed in a random order. The factor of each of the first three is uniform
    in [max(0, 1 - strength), 1 + strength]. The shift of the hue is uniform in [-strength, strength] of the colour circle.

    Args:
        brightness: Strength, at least 0, like the next two.
        contrast: Strength.
        saturation: Strength.
        hue: Strength, at most 0.5.
    """

    def __init__(self, brightness: float, contrast: float, saturation: float, hue: float) -> None:
        factors: list[tuple[Adjust, float]] = [
            (F.adjust_brightness, brightness),
            (F.adjust_contrast, contrast),
            (F.adjust_saturation, saturation),
        ]
        self.steps: list[tuple[Adjust, float, float]] = [
            (adjust, max(0.0, 1 - strength), 1 + strength) for adjust, strength in factors if strength
        ]
        if hue:
            self.steps.append((F.adjust_hue, -hue, hue))

    def __call__(self, image: Image.Image) -> Image.Image:
        """The image with its colours changed."""
        chances = torch.rand(len(self.steps)).tolist()
        for number in torch.randperm(len(self.steps)).tolist():
            adjust, smallest, largest = self.steps[number]
            image = adjust(image, _between((smallest, largest), chances[number]))
        return image


class StandardViews(Views):
    """The views ``standard``: crop, colour jitter, grey, blur, solarisation, flip, normalise, in this order.

    The recipe works on PIL images, whose operations are several times faster on small images than torch's. The blur is
    Pillow's GaussianBlur, which has no kernel size that would cut off a large sigma.

    Args:
        options: Strengths and probabilities.
        image_size: Side of a global view, in pixels.
        mean: The mean of each channel, in [0, 1].
        std: The standard deviation of each channel, above 0.
    """

    def __init__(self, options: StandardViewsOptions, image_size: int, mean: Colour, std: Colour) -> None:
        self.options = options
        self.local_size, self.global_count = options.local_size, options.global_count
        self.crops = [RandomCrop(*crop) for crop in options.crops(image_size)]
        self.jitter = ColourJitter(options.brightness, options.contrast, options.saturation, options.hue)
        self.normalise = Normalise(mean, std)

    def view(self, image: Image.Image, number: int) -> Tensor:
        """One view of an RGB image: float32 (3, S, S) with the view's side S, normalised.

        Args:
            image: The image.
            number: The number of the view, from 0. Blur and solarisation have one probability for view 0, and another for
                every other view.
        """
        options = self.options
        which = min(number, 1)
        # All numbers are drawn whether needed or not, so that an option does not change the chances of the others. Each is
        # below 1, so that a probability of 0 means never and one of 1 always.
        jitter, grey, blur, sigma, solarize, flip = torch.rand(6).tolist()
        image = self.crops[0 if number < self.global_count else -1](image)
        if jitter < options.jitter_p:
            image = self.jitter(image)
        if grey < options.grayscale_p:
            image = F.rgb_to_grayscale(image, num_output_channels=3)
        if blur < options.blur_p[which]:
            image = image.filter(ImageFilter.GaussianBlur(_between(BLUR_SIGMA, sigma)))
        if solarize < options.solarize_p[which]:
            image = F.solarize(image, SOLARIZE_THRESHOLD)
        if flip < options.flip_p:
            image = F.horizontal_flip(image)
        return self.normalise(image)


def _between(ends: tuple[float, float], share: float) -> float:
    return ends[0] + (ends[1] - ends[0]) * share
