"""Images that lie in memory or in a file as encoded bytes."""

from __future__ import annotations

from abc import abstractmethod
from io import BytesIO

from PIL import Image

from ssl_dc.data.base import ImageSet
from ssl_dc.data.pictures import read_rgb, read_size


class EncodedImages(ImageSet):
    """A set whose images are decoded when they are asked for."""

    @abstractmethod
    def encoded(self, index: int) -> tuple[BytesIO, str]:
        """The bytes of the image of that number, and its name for messages.

        Raises:
            DataError: If it has none.
        """

    def image(self, index: int) -> Image.Image:
        """The image of that number, in RGB.

        Raises:
            DataError: If it cannot be decoded. The message names it.
        """
        return read_rgb(*self.encoded(index))

    def size(self, index: int) -> tuple[int, int]:
        """Width and height of the image of that number, from its head.

        Raises:
            DataError: If it cannot be read.
        """
        return read_size(*self.encoded(index))
