"""What an augmentation recipe is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from torch import Tensor

if TYPE_CHECKING:
    from PIL.Image import Image


class Views(ABC):
    """Draws the augmented views of an image.

    A view may draw from torch's global random generator only: it is seeded before each view, so that the views of an
    image depend on the run's seed, the epoch and the image alone.
    """

    @abstractmethod
    def view(self, image: Image, number: int) -> Tensor:
        """View ``number`` (0 or 1) of an RGB image: float32 (3, image_size, image_size), normalised."""
