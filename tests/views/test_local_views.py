"""Local views: small crops of their own size and scale, beside global views that are what they were."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from ssl_dc.config import RunConfig
from ssl_dc.errors import ConfigError
from ssl_dc.routes import Route
from ssl_dc.testing import conformance
from ssl_dc.views import batched
from ssl_dc.views.base import Views, check_local_views
from ssl_dc.views.batched import BatchedStandardViews
from ssl_dc.views.chances import chances
from ssl_dc.views.kernel import kernel
from ssl_dc.views.options import BatchedStandardViewsOptions, StandardViewsOptions
from ssl_dc.views.standard import StandardViews

ZERO, ONE = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
SIDE, GLOBAL, LOCAL = 64, 32, 16
LOCALS: dict[str, Any] = {"local_size": LOCAL, "local_scale": (0.05, 0.4)}
PLAIN: dict[str, Any] = {"jitter_p": 0, "grayscale_p": 0, "solarize_p": (0, 0), "flip_p": 0, "crop_scale": (0.4, 1.0)}
DRAWN = 400
"""Views that are drawn to know their distribution."""

Draw = Callable[[dict[str, Any], int], Tensor]

test_standard_with_local_views = conformance("views", "standard", settings={"local_size": 8, "global_count": 1})
test_batched_with_local_views = conformance("views", "batched", settings={"local_size": 8})


def coordinates() -> Image.Image:
    """An image whose red is the column of a pixel and whose green is its row, each times 4."""
    line = np.arange(SIDE, dtype=np.uint8) * 4
    red, green = np.broadcast_to(line, (SIDE, SIDE)), np.broadcast_to(line[:, None], (SIDE, SIDE))
    return Image.fromarray(np.stack([red, green, np.zeros_like(red)], axis=2))


def one_by_one(options: dict[str, Any], number: int) -> Tensor:
    """View ``number`` of an image, many times, by the recipe ``standard``."""
    views = StandardViews(StandardViewsOptions(**options), GLOBAL, ZERO, ONE)
    torch.manual_seed(0)
    return torch.stack([views.view(coordinates(), number) for _ in range(DRAWN)])


def whole_batch(options: dict[str, Any], number: int) -> Tensor:
    """The same by the recipe ``batched``."""
    views = BatchedStandardViews(BatchedStandardViewsOptions(**options), GLOBAL, ZERO, ONE)
    images = torch.from_numpy(np.array(coordinates())).permute(2, 0, 1).expand(DRAWN, -1, -1, -1)
    return views.view_batch(images, number, chances(0, 0, np.arange(DRAWN), number, views.chances))


@pytest.fixture(params=["standard", "batched by the kernel", "batched by torch"])
def draw(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Draw:
    """Draws a view of an image, many times."""
    if request.param == "batched by torch":
        monkeypatch.setattr(batched, "kernel", lambda: None)
    elif request.param == "batched by the kernel" and kernel() is None:
        pytest.skip("this machine has no C compiler, hence no kernel")
    return one_by_one if request.param == "standard" else whole_batch


def shown_shares(views: Tensor) -> Tensor:
    """The share of the image of coordinates that each view shows, by how far its colours go: (N,)."""
    size = views.shape[2]
    near, far = size // 4, 3 * size // 4
    width = (views[:, 0, size // 2, far] - views[:, 0, size // 2, near]) * 255 / 4 * size / (far - near)
    height = (views[:, 1, far, size // 2] - views[:, 1, near, size // 2]) * 255 / 4 * size / (far - near)
    return width * height / SIDE**2


def test_local_views_show_shares_of_their_own_scale_at_their_own_size(draw: Draw) -> None:
    for number in (2, 5):
        views = draw({**PLAIN, **LOCALS}, number)
        assert views.shape == (DRAWN, 3, LOCAL, LOCAL)
        shares = shown_shares(views)
        assert 0.045 < shares.min() < 0.08
        assert 0.37 < shares.max() < 0.42
        # uniform: mean 0.225 and deviation 0.35 / sqrt(12) = 0.101, of 400 views within three standard errors
        assert shares.mean() == pytest.approx(0.225, abs=3 * 0.101 / DRAWN**0.5)
        assert shares.std() == pytest.approx(0.101, rel=0.1)
    assert shown_shares(draw({**PLAIN, **LOCALS}, 1)).min() > 0.38


def test_local_views_lie_anywhere_in_the_image(draw: Draw) -> None:
    middles = draw({**PLAIN, **LOCALS}, 2)[:, :2, LOCAL // 2, LOCAL // 2] * 255 / 4
    assert middles.amin(dim=0).max() < SIDE / 4
    assert middles.amax(dim=0).min() > 3 * SIDE / 4
    assert middles.mean(dim=0).tolist() == pytest.approx([SIDE / 2] * 2, abs=3)


def test_global_views_are_to_the_bit_what_they_are_without_local_ones(draw: Draw) -> None:
    options = {"crop_scale": (0.4, 1.0), "blur_p": (0.5, 0.5)}
    for number in (0, 1):
        assert torch.equal(draw(options, number), draw({**options, **LOCALS}, number))
    assert draw({**options, **LOCALS, "global_count": 1}, 1).shape[2] == LOCAL


def test_a_worker_crops_a_local_view_as_the_device_does() -> None:
    """But for the rounding of crops to whole pixel values."""
    recipe = BatchedStandardViews(BatchedStandardViewsOptions(**LOCALS), GLOBAL, ZERO, ONE)
    drawn = chances(0, 0, np.arange(16), 2, recipe.chances)
    images = torch.from_numpy(np.array(coordinates())).permute(2, 0, 1).expand(16, -1, -1, -1)
    in_worker = torch.stack([recipe.crop(coordinates(), 2, some) for some in drawn])
    assert (recipe.crop_batch(images, 2, drawn) - in_worker.float()).abs().max() < 2
    assert (recipe.finish(in_worker, 2, drawn) - recipe.view_batch(images, 2, drawn)).abs().mean() < 0.02


def test_small_crops_of_a_small_scale_need_larger_pictures() -> None:
    """DINO's: 96 pixels of a twentieth of the image are finer than 224 of two fifths."""
    options = BatchedStandardViewsOptions(crop_scale=(0.4, 1), local_size=96, local_scale=(0.05, 0.4))
    least = BatchedStandardViews(options, 224, ZERO, ONE).least_size
    assert least == (224, pytest.approx(96**2 * 4 / 3 / 0.05))


class Two(Views):
    """Two global views, then local ones."""

    local_size = 8

    def view(self, image: Image.Image, number: int) -> Tensor:
        raise NotImplementedError


def test_local_views_need_a_route_and_are_smaller_than_global_ones() -> None:
    views = Two()
    assert views.sizes(16, 4) == (16, 16, 8, 8)
    check_local_views(views, 16, (Route.GATED, Route.DENSE, Route.GATED))
    with pytest.raises(
        ConfigError, match=r"routes gated,dense: the first 2 views are global, .* such as gated,dense,gated,"
    ):
        check_local_views(views, 16, (Route.GATED, Route.DENSE))
    with pytest.raises(ConfigError, match="local views of 8 px must be smaller than the global ones, which have 8 px"):
        check_local_views(views, 8, (Route.GATED, Route.DENSE, Route.GATED))


@pytest.mark.parametrize("scale", ["0.05,0.4", [0.05, 0.4]])
def test_scales_are_written_as_lists_or_as_users_write_them(scale: Any) -> None:
    config = RunConfig.model_validate({"views": {"local_scale": scale, "crop_scale": "0.4,1"}})
    assert isinstance(config.views, StandardViewsOptions)
    assert (config.views.local_scale, config.views.crop_scale) == ((0.05, 0.4), (0.4, 1.0))
    with pytest.raises(ValueError, match="smallest <= largest"):
        RunConfig.model_validate({"views": {"local_scale": "0.4,0.05"}})
