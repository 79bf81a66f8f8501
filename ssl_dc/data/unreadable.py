"""Going on where some images cannot be read: another stands in for each, and they are counted and listed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.distributed as dist

from ssl_dc.data.base import ImageSet, OtherImages
from ssl_dc.distributed import world_size
from ssl_dc.errors import DataError

if TYPE_CHECKING:
    from PIL.Image import Image


class Readable(OtherImages):
    """A set in which the next image of the same class stands in for one that cannot be read.

    So the number of images, their labels and their order stay what they are, and with them all that is drawn by number:
    a run goes on, and is resumed, the same whichever process comes upon the image first.

    Args:
        images: The set.
    """

    def __init__(self, images: ImageSet) -> None:
        super().__init__(images)
        # in shared memory: the processes that prepare images mark here what they could not read
        self._unreadable = torch.zeros(len(images), dtype=torch.bool).share_memory_()

    def image(self, index: int) -> Image:
        """The image of that number, or of the next one of its class that can be read.

        Raises:
            DataError: If there is none.
        """
        try:
            if not self._unreadable[index]:
                return self._images.image(index)
        except DataError:
            self._unreadable[index] = True
        return self._stand_in(index)

    def _stand_in(self, index: int) -> Image:
        for candidate in self._others_of_its_class(index):
            if not self._unreadable[candidate]:
                try:
                    return self._images.image(candidate)
                except DataError:
                    self._unreadable[candidate] = True
        raise DataError(f"no image of its class is left to stand in for one that cannot be read: {self._reason(index)}")

    def _others_of_its_class(self, index: int) -> list[int]:
        """Those that come after it, then those from the first on."""
        labels = self._images.labels
        alike = np.arange(len(self)) if labels is None else np.flatnonzero(labels == labels[index])
        return [*alike[alike > index].tolist(), *alike[alike < index].tolist()]

    def left_out(self, *, together: bool = True) -> list[str]:
        """What is said of each image that could not be read.

        Args:
            together: In this process or, in a launch of several, in any; all of them must ask. Otherwise in this one only.
        """
        if together and world_size() > 1:
            anywhere = self._unreadable.int()
            if dist.get_backend() == "nccl":
                anywhere = anywhere.cuda()
            dist.all_reduce(anywhere, op=dist.ReduceOp.MAX)
            self._unreadable |= anywhere.cpu().bool()
        return [self._reason(int(index)) for index in self._unreadable.nonzero()]

    def _reason(self, index: int) -> str:
        try:
            self._images.image(index)
        except DataError as error:
            return str(error)
        return f"image number {index} could not be read; now it can"
