from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pydantic import ValidationError
from torchvision.transforms import v2

from ssl_dc.views.options import StandardViewsOptions
from ssl_dc.views.standard import ColourJitter, RandomCrop, StandardViews

ZERO = (0.0, 0.0, 0.0)
ONE = (1.0, 1.0, 1.0)
OFF: dict[str, Any] = {
    "crop_scale": (1.0, 1.0),
    "jitter_p": 0,
    "grayscale_p": 0,
    "solarize_p": (0, 0),
    "flip_p": 0,
    "blur_p": (0, 0),
}


def noise(size: int = 16) -> Image.Image:
    return Image.fromarray(np.random.default_rng(1).integers(0, 256, (size, size, 3), np.uint8))


def plain(image: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1) / 255


def whole(**options: Any) -> StandardViews:
    """Views of 16x16 images that are not cropped: at full area, no other crop fits into a square."""
    return StandardViews(StandardViewsOptions(**{**OFF, **options}), 16, ZERO, ONE)


@given(width=st.integers(1, 80), height=st.integers(1, 80), size=st.integers(8, 40), number=st.integers(0, 1))
def test_view_of_any_image_has_the_shape_and_range(width: int, height: int, size: int, number: int) -> None:
    views = StandardViews(StandardViewsOptions(blur_p=(0.5, 0.5)), size, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    view = views.view(noise(80).crop((0, 0, width, height)), number)
    assert view.shape == (3, size, size)
    assert view.dtype == torch.float32
    assert view.is_contiguous()
    assert view.min() >= -1.00001
    assert view.max() <= 1.00001


@pytest.mark.parametrize("option", ["blur_p", "solarize_p"])
def test_a_third_view_is_drawn_as_the_second(option: str) -> None:
    views = whole(**{option: (0, 1)})
    drawn = []
    for number in range(3):
        torch.manual_seed(7)
        drawn.append(views.view(noise(), number))
    assert not torch.equal(drawn[0], drawn[1])
    assert torch.equal(drawn[1], drawn[2])


def test_view_is_normalised_with_mean_and_std_of_each_channel() -> None:
    mean, std = (0.1, 0.2, 0.3), (0.5, 0.25, 2.0)
    views = StandardViews(StandardViewsOptions(**OFF), 16, mean, std)
    view = views.view(Image.new("RGB", (16, 16), (51, 102, 153)), 0)
    expected = [(0.2 - 0.1) / 0.5, (0.4 - 0.2) / 0.25, (0.6 - 0.3) / 2.0]
    torch.testing.assert_close(view[:, 4, 4], torch.tensor(expected))


def test_with_everything_off_the_image_is_left_as_it_is() -> None:
    torch.testing.assert_close(whole().view(noise(), 0), plain(noise()))


def test_flip_mirrors() -> None:
    torch.testing.assert_close(whole(flip_p=1).view(noise(), 0), plain(noise()).flip(-1))


def test_grey_images_have_three_equal_channels() -> None:
    view = whole(grayscale_p=1).view(noise(), 0)
    assert torch.equal(view[0], view[1])
    assert torch.equal(view[0], view[2])


@pytest.mark.parametrize("number", [0, 1])
def test_solarize_inverts_the_bright_half_of_the_view_it_is_for(number: int) -> None:
    views = whole(solarize_p=(1, 0) if number == 0 else (0, 1))
    image = plain(noise())
    inverted = torch.where(image >= 128 / 255, 1 - image, image)
    torch.testing.assert_close(views.view(noise(), number), inverted)
    torch.testing.assert_close(views.view(noise(), 1 - number), image)


def test_blur_smooths_the_view_it_is_for_by_a_random_amount() -> None:
    views = whole(blur_p=(0, 1))
    image = plain(noise())
    torch.testing.assert_close(views.view(noise(), 0), image)
    roughness = [float(views.view(noise(), 1).std() / image.std()) for _ in range(50)]
    assert max(roughness) <= 1.0
    assert min(roughness) < 0.4
    assert len(set(roughness)) > 25


def test_jitter_changes_colours() -> None:
    assert not torch.equal(whole(jitter_p=1).view(noise(), 0), plain(noise()))
    still = whole(jitter_p=1, brightness=0, contrast=0, saturation=0, hue=0)
    torch.testing.assert_close(still.view(noise(), 0), plain(noise()))


@pytest.mark.parametrize(("option", "p"), [("flip_p", 0.5), ("grayscale_p", 0.2), ("jitter_p", 0.8)])
def test_probabilities_hold(option: str, p: float) -> None:
    torch.manual_seed(0)
    views = whole(**{option: p})
    changed = [not torch.equal(views.view(noise(), 0), views.normalise(noise())) for _ in range(1000)]
    assert abs(np.mean(changed) - p) < 0.06


def test_default_probability_of_solarisation_is_a_tenth() -> None:
    torch.manual_seed(0)
    views = whole(solarize_p=StandardViewsOptions().solarize_p)
    changed = [not torch.equal(views.view(noise(), 1), views.normalise(noise())) for _ in range(1000)]
    assert abs(np.mean(changed) - 0.1) < 0.04


@given(width=st.integers(1, 300), height=st.integers(1, 300))
def test_crop_lies_in_the_image(width: int, height: int) -> None:
    top, left, h, w = RandomCrop(8, (0.2, 1.0)).box(width, height)
    assert 0 <= top <= height - h
    assert 0 <= left <= width - w
    assert min(h, w) >= 1


def test_crops_have_the_areas_shapes_and_places_of_torchvisions() -> None:
    torch.manual_seed(0)
    ours = np.array([RandomCrop(8, (0.2, 1.0)).box(100, 80) for _ in range(3000)])
    reference = v2.RandomResizedCrop(8, scale=(0.2, 1.0))
    image = Image.new("RGB", (100, 80))
    theirs = np.array([reference.get_params(image, [0.2, 1.0], [3 / 4, 4 / 3]) for _ in range(3000)])
    np.testing.assert_allclose(ours.mean(0), theirs.mean(0), atol=1.5)
    np.testing.assert_allclose(ours.std(0), theirs.std(0), atol=1.5)
    for column in range(4):
        quantiles = np.linspace(0.05, 0.95, 10)
        np.testing.assert_allclose(
            np.quantile(ours[:, column], quantiles), np.quantile(theirs[:, column], quantiles), atol=4
        )


def test_crop_of_a_very_long_image_is_its_middle_as_torchvisions() -> None:
    reference = v2.RandomResizedCrop(8, scale=(1.0, 1.0))
    for size in ((400, 8), (8, 400)):
        theirs = reference.get_params(Image.new("RGB", size), [1.0, 1.0], [3 / 4, 4 / 3])
        assert RandomCrop(8, (1.0, 1.0)).box(*size) == theirs


@pytest.mark.long
def test_jitter_has_the_statistics_of_torchvisions() -> None:
    torch.manual_seed(0)
    strengths = (0.4, 0.4, 0.2, 0.1)
    image = Image.new("RGB", (2, 2), (200, 100, 50))
    image.putpixel((0, 0), (30, 60, 90))

    def pixels(jitter: Any) -> np.ndarray[Any, Any]:
        return np.stack([np.asarray(jitter(image)) for _ in range(3000)]).astype(float)

    ours, theirs = pixels(ColourJitter(*strengths)), pixels(v2.ColorJitter(*strengths))
    np.testing.assert_allclose(ours.mean(0), theirs.mean(0), atol=4)
    np.testing.assert_allclose(ours.std(0), theirs.std(0), atol=3)


def test_views_draw_from_torchs_generator_alone() -> None:
    views = StandardViews(StandardViewsOptions(blur_p=(0.5, 0.5)), 16, ZERO, ONE)
    drawn = []
    for other in (1, 2):
        np.random.seed(other)
        torch.manual_seed(5)
        drawn.append(torch.stack([views.view(noise(), 1) for _ in range(20)]))
    assert torch.equal(drawn[0], drawn[1])


@pytest.mark.parametrize("scale", [(0.0, 1.0), (0.5, 0.2), (0.5, 1.5)])
def test_crop_scale_must_be_two_shares_in_order(scale: tuple[float, float]) -> None:
    with pytest.raises(ValidationError, match="smallest <= largest"):
        StandardViewsOptions(crop_scale=scale)
