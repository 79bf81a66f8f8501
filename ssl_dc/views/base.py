"""What an augmentation recipe is.

A training draws views of each image, one for each of its routes. The first ones are global: they show most of an image, at
the size that the network is for. Further ones may be local: small crops of a smaller part, as in SwAV's multi-crop (Caron
et al. 2020) and DINO.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ssl_dc.errors import ConfigError
from ssl_dc.routes import Route

if TYPE_CHECKING:
    from PIL.Image import Image

    from ssl_dc.data.pictures import LeastSize


class Views(ABC):
    """Draws the augmented views of an image.

    A recipe may draw from torch's global random generator only. The generator is seeded before each view, so that the views
    of an image depend on the run's seed, the epoch and the image alone.

    Attributes:
        local_size: Side of local views, in pixels. None means that all views are global.
        global_count: If there are local views: how many of the views, the first ones, are global.
    """

    local_size: int | None = None
    global_count: int = 2

    @abstractmethod
    def view(self, image: Image, number: int) -> Tensor:
        """One view of an RGB image.

        Args:
            image: The image.
            number: The number of the view, from 0. A training draws one view for each of its routes, two or more.

        Returns:
            float32 (3, image_size, image_size), normalised; (3, local_size, local_size) for a local view.
        """

    def sizes(self, image_size: int, count: int) -> tuple[int, ...]:
        """The side of each of so many views, in pixels.

        Args:
            image_size: Side of a global view, in pixels.
            count: Number of views.
        """
        local_size = self.local_size or image_size
        return tuple(image_size if number < self.global_count else local_size for number in range(count))


def check_local_views(views: Views, image_size: int, routes: Sequence[Route]) -> None:
    """Check that local views are smaller than global ones, and that there is a route for one at least.

    Args:
        views: The recipe. One without local views passes.
        image_size: Side of a global view, in pixels.
        routes: The route of each view.

    Raises:
        ConfigError: If it is not so.
    """
    if views.local_size is None:
        return
    if views.local_size >= image_size:
        raise ConfigError(
            f"local views of {views.local_size} px must be smaller than the global ones, which have {image_size} px:"
            " lower views.local_size or raise data.image_size"
        )
    if len(routes) <= views.global_count:
        written = ",".join(map(str, routes))
        raise ConfigError(
            f"routes {written}: the first {views.global_count} views are global, so no local view of {views.local_size} px"
            f" has a route; add one for each, such as {written},{routes[0]}, or lower views.global_count"
        )


class BatchedViews(Views):
    """Views that are drawn for a whole batch at once, on the device that trains.

    All randomness comes from ``chances``: uniform numbers in [0, 1) that the loop draws for each view of each image from
    the run's seed, the epoch and the image alone. So it does not matter which batch an image is in, or on which device.

    Of images of one size that fit into memory, :meth:`view_batch` draws the views on the device, as a rule by
    :meth:`crop_batch` and :meth:`finish`. Others are cropped by :meth:`crop` in the processes that read them, and
    :meth:`finish` does the rest, on the device.

    Attributes:
        chances: How many random numbers a view needs.
        least_size: How small an image that :meth:`crop` gets may have been decoded; None for its full size.
    """

    chances: int
    least_size: LeastSize | None = None

    @property
    def fast_on_cpu(self) -> bool:
        """Whether :meth:`view_batch` is fast on a CPU, and lets other threads run. CPU threads then draw for a GPU."""
        return False

    @abstractmethod
    def crop(self, image: Image, number: int, chances: Tensor) -> Tensor:
        """Part of an RGB image for view ``number``: uint8 (3, S, S) with the view's side S; ``chances`` is (chances,)."""

    @abstractmethod
    def crop_batch(self, images: Tensor, number: int, chances: Tensor) -> Tensor:
        """Part of each of the images (N, 3, H, W) uint8: (N, 3, S, S) in [0, 255], with the view's side S.

        The chances, (N, chances), are on the CPU; images may be on any device.
        """

    @abstractmethod
    def finish(self, crops: Tensor, number: int, chances: Tensor) -> Tensor:
        """View ``number`` of its crops (N, 3, S, S) in [0, 255]: float32, normalised."""

    def view_batch(self, images: Tensor, number: int, chances: Tensor) -> Tensor:
        """View ``number`` of each of the images (N, 3, H, W) uint8: float32 (N, 3, S, S), normalised.

        A recipe that can crop and finish in one pass overrides this.
        """
        return self.finish(self.crop_batch(images, number, chances), number, chances)

    def prepare(self) -> None:  # most recipes have nothing to do
        """Called in the training process before it starts others that crop."""

    def view(self, image: Image, number: int) -> Tensor:
        """View ``number`` of one RGB image, with chances from torch's global generator."""
        chances = torch.rand(self.chances)
        return self.finish(self.crop(image, number, chances)[None], number, chances[None])[0].contiguous()
