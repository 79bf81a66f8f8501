"""Images that stand for those that are not at hand."""

from __future__ import annotations

import numpy as np
from PIL import Image

from ssl_dc.data.base import ImageSet, Labels


class Noise(ImageSet):
    """Images of noise, which stand for images that are not at hand.

    Args:
        count: How many.
        side: Side of each, in pixels.
    """

    def __init__(self, count: int, side: int) -> None:
        self._count, self._side = count, side

    @property
    def labels(self) -> Labels | None:
        """There are none."""
        return None

    def __len__(self) -> int:
        return self._count

    def image(self, index: int) -> Image.Image:
        """The image of that number."""
        shape = (self._side, self._side, 3)
        return Image.fromarray(np.random.default_rng(index).integers(0, 256, shape, dtype=np.uint8))
