"""The images of a set as tensors, one by one, for a loader."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from torch import Tensor
from torch.utils.data import Dataset

from ssl_dc.data.base import ImageSet

if TYPE_CHECKING:
    from PIL.Image import Image


class Prepared(Dataset[Tensor]):
    """Images in their order, without chance, for evaluation.

    Args:
        images: The images.
        transform: Makes a tensor of one, see :func:`evaluation_transform`.
    """

    def __init__(self, images: ImageSet, transform: Callable[[Image], Tensor]) -> None:
        self.images = images
        self.transform = transform

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Tensor:
        return self.transform(self.images.image(index))
