"""What an augmentation recipe is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from torch import Tensor

if TYPE_CHECKING:
    from PIL.Image import Image


class Views(ABC):
    """Draws the augmented views of an image.

    A recipe may draw from torch's global random generator only. The generator is seeded before each view, so that the views
    of an image depend on the run's seed, the epoch and the image alone.
    """

    @abstractmethod
    def view(self, image: Image, number: int) -> Tensor:
        """One view of an RGB image.

        Args:
            image: The image.
            number: The number of the view, from 0. A training draws one view for each of its routes, two or more.

        Returns:
            float32 (3, image_size, image_size), normalised.
        """
