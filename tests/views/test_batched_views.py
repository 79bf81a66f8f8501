"""The views ``batched`` hold to the operations and the distribution of the views ``standard``, and of Pillow."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFilter
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from ssl_dc.views import batched
from ssl_dc.views.batched import BatchedStandardViews, boxes
from ssl_dc.views.chances import chances
from ssl_dc.views.cropping import drawn_box
from ssl_dc.views.kernel import kernel
from ssl_dc.views.options import BatchedStandardViewsOptions, StandardViewsOptions
from ssl_dc.views.standard import RandomCrop, StandardViews

ZERO, ONE = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
OFF: dict[str, Any] = {
    "crop_scale": (1.0, 1.0),
    "jitter_p": 0,
    "grayscale_p": 0,
    "solarize_p": (0, 0),
    "flip_p": 0,
    "blur_p": (0, 0),
}


def pictures(count: int = 8, size: int = 24) -> Tensor:
    """Smooth random pictures, uint8 (count, 3, size, size)."""
    coarse = np.random.default_rng(0).integers(0, 256, (count, 6, 6, 3), np.uint8)
    fine = [np.array(Image.fromarray(one).resize((size, size), Image.Resampling.BICUBIC)) for one in coarse]
    return torch.from_numpy(np.stack(fine)).permute(0, 3, 1, 2).contiguous()


def as_pil(image: Tensor) -> Image.Image:
    return Image.fromarray(image.permute(1, 2, 0).numpy())


def by_pillow(images: Tensor, change: Callable[[Image.Image, float], Image.Image], amounts: Tensor) -> Tensor:
    changed = [change(as_pil(image), float(amount)) for image, amount in zip(images, amounts, strict=True)]
    return torch.stack([torch.from_numpy(np.array(one)).permute(2, 0, 1) for one in changed]).float()


def by_row(images: Tensor) -> Tensor:
    return images.float().permute(0, 2, 1, 3).contiguous()


@pytest.fixture(params=["kernel", "torch"])
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """What draws the views: the compiled kernel, or torch's operations."""
    if request.param == "torch":
        monkeypatch.setattr(batched, "kernel", lambda: None)
    elif kernel() is None:
        pytest.skip("this machine has no C compiler, hence no kernel")
    return str(request.param)


def views(size: int = 24, **options: Any) -> BatchedStandardViews:
    return BatchedStandardViews(BatchedStandardViewsOptions(**{**OFF, **options}), size, ZERO, ONE)


def test_chances_depend_on_each_argument_and_on_nothing_else() -> None:
    whole = chances(3, 5, np.arange(100), 1, 7)
    assert torch.equal(whole[[4, 90, 17]], chances(3, 5, [4, 90, 17], 1, 7))
    assert torch.equal(whole[:, :3], chances(3, 5, np.arange(100), 1, 3))
    for other in (
        chances(4, 5, np.arange(100), 1, 7),
        chances(3, 6, np.arange(100), 1, 7),
        chances(3, 5, np.arange(100), 0, 7),
    ):
        assert (whole == other).float().mean() < 0.01


def test_chances_are_uniform_and_not_correlated() -> None:
    drawn = chances(0, 0, np.arange(20_000), 0, 6).double()
    assert drawn.min() >= 0
    assert drawn.max() < 1
    counts = torch.histc(drawn.float(), 20, 0, 1) / drawn.numel()
    assert (counts - 1 / 20).abs().max() < 0.002
    neighbours = torch.cat([drawn[:-1], drawn[1:]], dim=1)
    correlation = torch.corrcoef(neighbours.T) - torch.eye(12)
    assert correlation.abs().max() < 0.03


@settings(max_examples=60)
@given(width=st.integers(1, 90), height=st.integers(1, 90), least=st.floats(0.05, 1), seed=st.integers(0, 2**31))
def test_boxes_lie_inside_the_image_and_keep_to_scale_and_ratio(width: int, height: int, least: float, seed: int) -> None:
    drawn = boxes(chances(seed, 0, np.arange(32), 0, 40), width, height, (least, 1.0))
    top, left, h, w = drawn.unbind(1)
    assert (top >= 0).all()
    assert (left >= 0).all()
    assert (h >= 1).all()
    assert (w >= 1).all()
    assert (top + h <= height).all()
    assert (left + w <= width).all()


@settings(max_examples=60)
@given(
    times=st.sampled_from([2, 4, 8]),
    width=st.integers(1, 900),
    height=st.integers(1, 900),
    size=st.integers(1, 64),
    least=st.floats(0.05, 1),
    local=st.just({})
    | st.fixed_dictionaries(
        {"local_size": st.integers(8, 64), "local_scale": st.floats(0.01, 0.4).map(lambda s: (s, 0.4))}
    ),
)
def test_no_part_of_an_image_that_was_decoded_smaller_is_enlarged(
    times: int, width: int, height: int, size: int, least: float, local: dict[str, Any]
) -> None:
    """But for a part that becomes a pixel too small when its sides are rounded."""
    recipe = views(size, crop_scale=(least, 1.0), **local)
    allowed = recipe.least_size
    assert allowed is not None
    assume(min(width, height) >= times * allowed.side and width * height >= times**2 * allowed.area)
    reduced = (-(-width // times), -(-height // times))
    for number, side in enumerate(recipe.sizes(size, 3)):
        scale = local["local_scale"] if local and number == 2 else (least, 1.0)
        drawn = boxes(chances(width, height, np.arange(64), number, 40), *reduced, scale)
        assert drawn[:, 2:].min() >= side - 1


@settings(max_examples=60)
@given(width=st.integers(1, 90), height=st.integers(1, 90), least=st.floats(0.05, 1), seed=st.integers(0, 2**31))
def test_boxes_of_a_batch_are_those_of_each_image_alone(width: int, height: int, least: float, seed: int) -> None:
    drawn = chances(seed, 0, np.arange(32), 0, 40)
    alone = [drawn_box(some.view(10, 4).tolist(), width, height, (least, 1.0)) for some in drawn]
    assert boxes(drawn, width, height, (least, 1.0)).tolist() == [list(box) for box in alone]


def test_boxes_are_drawn_as_the_standard_views_draw_them() -> None:
    """The first two moments of area, ratio and place, on a picture that is not square."""
    ours = boxes(chances(0, 0, np.arange(20_000), 0, 40), 60, 40, (0.2, 1.0)).double()
    crop = RandomCrop(8, (0.2, 1.0))
    torch.manual_seed(0)
    theirs = torch.tensor([crop.box(60, 40) for _ in range(20_000)]).double()
    for column in range(4):
        a, b = ours[:, column], theirs[:, column]
        error = (a.var() / len(a) + b.var() / len(b)).sqrt()
        assert (a.mean() - b.mean()).abs() < 4 * error
        assert (a.std() / b.std() - 1).abs() < 0.03


@pytest.mark.usefixtures("engine")
def test_both_ways_to_crop_give_the_same_picture() -> None:
    """On the device in floats, and in a worker rounded: by the kernel, or by Pillow, after each of its two passes."""
    recipe = views(16, crop_scale=(0.2, 1.0), flip_p=0.5)
    images, drawn = pictures(32), chances(0, 0, np.arange(32), 0, BatchedStandardViews.chances)
    on_device = recipe.crop_batch(images, 0, drawn)
    in_worker = torch.stack([recipe.crop(as_pil(image), 0, some) for image, some in zip(images, drawn, strict=True)])
    difference = (on_device - in_worker.float()).abs()
    assert difference.mean() < 0.5
    assert difference.max() < 4


def test_resampling_is_pillows() -> None:
    """Exact up to Pillow's rounding, enlarged and reduced, by a float image that Pillow does not round."""
    line = np.random.default_rng(0).random((1, 50), dtype=np.float32)
    for start, length, after in ((0, 50, 20), (7, 31, 31), (10, 9, 40), (49, 1, 8), (3, 47, 5)):
        expected = Image.fromarray(line[:, start : start + length].copy()).resize((after, 1), Image.Resampling.BICUBIC)
        weights = batched.resampling(torch.tensor([start]), torch.tensor([length]), 50, after)[0]
        torch.testing.assert_close(
            weights @ torch.from_numpy(line[0]), torch.from_numpy(np.array(expected)[0]), rtol=0, atol=2e-5
        )


@pytest.mark.parametrize(
    ("ours", "pillows"),
    [
        (batched.brightness, F.adjust_brightness),
        (batched.contrast, F.adjust_contrast),
        (batched.saturation, F.adjust_saturation),
    ],
)
def test_adjustments_are_pillows(ours: Callable[..., Tensor], pillows: Callable[..., Image.Image]) -> None:
    factors = torch.linspace(0.2, 1.8, 8)
    changed = ours(by_row(pictures()), factors.view(-1, 1, 1, 1)).permute(0, 2, 1, 3)
    assert (changed - by_pillow(pictures(), pillows, factors)).abs().max() < 1.5


def test_hue_is_turned_as_torchvision_does_on_floats() -> None:
    shifts = torch.tensor([-0.5, -0.2, -0.05, 0.0, 0.01, 0.1, 0.3, 0.5])
    changed = batched.hue(by_row(pictures()), shifts.view(-1, 1, 1, 1)).permute(0, 2, 1, 3)
    expected = [
        255 * F.adjust_hue(image / 255, float(shift)) for image, shift in zip(pictures().float(), shifts, strict=True)
    ]
    torch.testing.assert_close(changed, torch.stack(expected), rtol=0, atol=2e-3)


def test_grey_pixels_have_no_hue_to_turn() -> None:
    grey = torch.full((2, 4, 3, 4), 77.0)
    assert torch.equal(batched.hue(grey, torch.full((2, 1, 1, 1), 0.3)), grey)


def test_blur_is_a_gaussian_whose_edges_go_on() -> None:
    sigma = torch.linspace(0.1, 2.0, 8)
    images = by_row(pictures())
    blurred = batched.blur(images, sigma).permute(0, 2, 1, 3)
    for image, deviation, result in zip(pictures().double(), sigma, blurred, strict=True):
        offsets = torch.arange(-8, 9, dtype=torch.float64)
        kernel = torch.exp(-0.5 * (offsets / deviation) ** 2)
        kernel /= kernel.sum()
        wide = torch.nn.functional.pad(image, (8, 8, 8, 8), mode="replicate")
        expected = (wide.unfold(1, 17, 1) * kernel).sum(-1)
        expected = (expected.unfold(2, 17, 1) * kernel).sum(-1)
        torch.testing.assert_close(result.double(), expected, rtol=0, atol=0.02)
    theirs = by_pillow(pictures(), lambda image, s: image.filter(ImageFilter.GaussianBlur(s)), sigma)
    assert (blurred - theirs).abs().mean() < 1


@pytest.mark.usefixtures("engine")
def test_with_everything_off_images_are_only_normalised() -> None:
    recipe = BatchedStandardViews(BatchedStandardViewsOptions(**OFF), 24, (0.1, 0.2, 0.3), (0.5, 0.25, 2.0))
    images, drawn = pictures(), chances(0, 0, np.arange(8), 0, BatchedStandardViews.chances)
    expected = (images / 255 - torch.tensor([0.1, 0.2, 0.3]).view(3, 1, 1)) / torch.tensor([0.5, 0.25, 2.0]).view(3, 1, 1)
    finished = recipe.view_batch(images, 0, drawn)
    torch.testing.assert_close(finished, expected, rtol=0, atol=1e-4)
    assert finished.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize(
    ("option", "expected"),
    [
        ({"flip_p": 1}, lambda image: image.flip(-1)),
        ({"solarize_p": (1, 1)}, lambda image: torch.where(image >= 128 / 255, 1 - image, image)),
    ],
)
def test_one_operation_alone(option: dict[str, Any], expected: Callable[[Tensor], Tensor]) -> None:
    recipe = views(**option)
    drawn = chances(0, 0, np.arange(8), 0, BatchedStandardViews.chances)
    finished = recipe.view_batch(pictures(), 0, drawn)
    torch.testing.assert_close(finished, expected(pictures() / 255), rtol=0, atol=1e-4)


@pytest.mark.usefixtures("engine")
def test_blur_and_solarisation_are_those_of_the_view() -> None:
    recipe = views(solarize_p=(0, 1))
    drawn = chances(0, 0, np.arange(8), 0, BatchedStandardViews.chances)
    first, second = recipe.view_batch(pictures(), 0, drawn), recipe.view_batch(pictures(), 1, drawn)
    torch.testing.assert_close(first, pictures() / 255, rtol=0, atol=1e-4)
    assert not torch.allclose(second, first)


def test_an_image_s_view_does_not_depend_on_its_batch(engine: str) -> None:
    recipe = BatchedStandardViews(BatchedStandardViewsOptions(blur_p=(0.5, 0.5)), 16, ZERO, ONE)
    images, drawn = pictures(32), chances(0, 2, np.arange(32), 1, BatchedStandardViews.chances)
    whole = recipe.view_batch(images, 1, drawn)
    part = recipe.view_batch(images[5:9], 1, drawn[5:9])
    torch.testing.assert_close(whole[5:9], part, rtol=0, atol=0 if engine == "kernel" else 1e-6)


@pytest.mark.long
@pytest.mark.usefixtures("engine")
def test_views_are_distributed_as_the_standard_ones() -> None:
    """Mean, deviation and chroma of a view, and how far they spread from view to view, on one picture."""
    image, count = pictures(1)[0], 3000
    options = {"blur_p": (0.3, 0.3)}
    recipe = BatchedStandardViews(BatchedStandardViewsOptions(**options), 16, ZERO, ONE)
    drawn = chances(0, 0, np.arange(count), 0, BatchedStandardViews.chances)
    ours = recipe.view_batch(image.expand(count, -1, -1, -1), 0, drawn)
    standard = StandardViews(StandardViewsOptions(**options), 16, ZERO, ONE)
    torch.manual_seed(0)
    theirs = torch.stack([standard.view(as_pil(image), 0) for _ in range(count)])
    for measure in (
        lambda x: x.mean(dim=(1, 2, 3)),
        lambda x: x.std(dim=(1, 2, 3)),
        lambda x: (x.amax(dim=1) - x.amin(dim=1)).mean(dim=(1, 2)),
        lambda x: (x[..., 1:] - x[..., :-1]).abs().mean(dim=(1, 2, 3)),
    ):
        a, b = measure(ours).double(), measure(theirs).double()
        error = (a.var() / count + b.var() / count).sqrt()
        assert (a.mean() - b.mean()).abs() < 4 * error + 0.002
        assert (a.std() / b.std() - 1).abs() < 0.06


@pytest.mark.cuda
def test_views_on_a_gpu_are_those_of_the_cpu() -> None:
    recipe = BatchedStandardViews(BatchedStandardViewsOptions(blur_p=(0.5, 0.5)), 16, ZERO, ONE)
    images, drawn = pictures(32), chances(0, 2, np.arange(32), 1, BatchedStandardViews.chances)
    here = recipe.view_batch(images, 1, drawn)
    there = recipe.view_batch(images.cuda(), 1, drawn)
    torch.testing.assert_close(there.cpu(), here, rtol=0, atol=5e-3)
