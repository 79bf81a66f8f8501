"""Which part of an image a view shows: as torchvision's ``RandomResizedCrop`` draws it.

The share of the image's area is uniform, and the aspect ratio is log-uniform in 3/4 to 4/3. The first of ten attempts that
fits into the image is taken, or else the largest part in the middle with an allowed ratio.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

ASPECT_RATIO = (3 / 4, 4 / 3)
CROP_ATTEMPTS = 10

Box = tuple[int, int, int, int]
"""Top, left, height and width of a part, in pixels."""


class Crop(NamedTuple):
    """How views are cropped.

    Attributes:
        size: Side of the crop after resizing, in pixels.
        scale: Smallest and largest share of the image's area.
    """

    size: int
    scale: tuple[float, float]


def drawn_box(attempts: Iterable[Sequence[float]], width: int, height: int, scale: tuple[float, float]) -> Box:
    """A random part of an image.

    Args:
        attempts: Random numbers in [0, 1), four for each attempt: for area, ratio, top and left.
        width: Of the image, in pixels.
        height: Of the image.
        scale: Smallest and largest share of the area.
    """
    log_ratio = (math.log(ASPECT_RATIO[0]), math.log(ASPECT_RATIO[1]))
    for share, shape, down, right in attempts:
        area = width * height * _between(scale, share)
        ratio = math.exp(_between(log_ratio, shape))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            return int(down * (height - h + 1)), int(right * (width - w + 1)), h, w
    return middle_box(width, height)


def middle_box(width: int, height: int) -> Box:
    """The largest part in the middle of an image with an allowed aspect ratio."""
    w = max(1, min(width, round(height * ASPECT_RATIO[1])))
    h = max(1, min(height, round(width / ASPECT_RATIO[0])))
    return (height - h) // 2, (width - w) // 2, h, w


def _between(ends: tuple[float, float], share: float) -> float:
    return ends[0] + (ends[1] - ends[0]) * share
