"""Small grey pictures that are told apart by how bright they are."""

from __future__ import annotations

from io import BytesIO

import numpy as np
from PIL import Image

from ssl_dc.data.base import ImageSet


def png(value: int) -> bytes:
    """A PNG file of 5x5 pixels, all of them so bright."""
    buffer = BytesIO()
    Image.new("L", (5, 5), value).save(buffer, "png")
    return buffer.getvalue()


def grey_of(images: ImageSet) -> list[int]:
    """How bright each image of a set is."""
    return [int(np.asarray(images.image(index))[0, 0, 0]) for index in range(len(images))]
