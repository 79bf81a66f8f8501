"""Small copies of images that stand inside the page."""

from __future__ import annotations

import base64
from io import BytesIO

from ssl_dc.data.base import ImageSet

SIDE = 64
"""The longer side of a thumbnail, in pixels, at most."""


def thumbnail(images: ImageSet, number: int) -> str:
    """An image of a set, made small, as a ``data:`` address.

    Raises:
        DataError: If it cannot be read.
    """
    image = images.image(number).convert("RGB")
    lossless = max(image.size) <= SIDE // 2  # so small an image shows what JPEG does to it
    image.thumbnail((SIDE, SIDE))
    content = BytesIO()
    image.save(content, **({"format": "PNG"} if lossless else {"format": "JPEG", "quality": 75}))
    kind = "png" if lossless else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(content.getvalue()).decode()}"
