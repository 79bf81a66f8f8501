"""The compiled kernel draws the views that the torch operations draw, and holds to independent float64 statements."""

from __future__ import annotations

import colorsys
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from ssl_dc.errors import SlowerWarning
from ssl_dc.native import library as native_library
from ssl_dc.views import batched
from ssl_dc.views import kernel as views_kernel
from ssl_dc.views.batched import BatchedStandardViews
from ssl_dc.views.chances import chances
from ssl_dc.views.kernel import DRAW, kernel
from ssl_dc.views.options import BatchedStandardViewsOptions

pytestmark = pytest.mark.skipif(
    sys.platform == "win32" or not shutil.which("cc"), reason="this machine has no C compiler, hence no kernel"
)
Image64 = npt.NDArray[np.float64]
ZERO, BYTES = torch.zeros(3), torch.ones(3)
"""With a scale of 1 and a shift of 0, the views of the kernel are values in [0, 255]."""


def noise(n: int, height: int, width: int, seed: int = 0) -> Tensor:
    """Images of noise, the hardest to resample: uint8 (n, 3, height, width)."""
    drawn = np.random.default_rng(seed).integers(0, 256, (n, height, width, 3), np.uint8)
    return torch.from_numpy(drawn).permute(0, 3, 1, 2)


def drawn_by_torch(recipe: BatchedStandardViews, images: Tensor, number: int, drawn: Tensor) -> Tensor:
    return recipe.finish(recipe.crop_batch(images, number, drawn), number, drawn)  # floats, which the kernel does not take


def recipe_in_bytes(size: int, **options: Any) -> BatchedStandardViews:
    """A recipe whose views are values in [0, 255]."""
    return BatchedStandardViews(BatchedStandardViewsOptions(**options), size, (0.0,) * 3, (1 / 255,) * 3)


PROBABILITY = st.sampled_from([0.0, 0.5, 1.0])


@settings(max_examples=80, deadline=None)
@given(
    size=st.integers(1, 40),
    height=st.integers(1, 70),
    width=st.integers(1, 70),
    least=st.floats(0.05, 1),
    strengths=st.tuples(*[st.sampled_from([0.0, 0.4, 1.5])] * 3, st.sampled_from([0.0, 0.1, 0.5])),
    jitter=PROBABILITY,
    grey=PROBABILITY,
    blurred=PROBABILITY,
    solarized=PROBABILITY,
    flip=PROBABILITY,
    number=st.integers(0, 2),
    seed=st.integers(0, 2**31),
)
def test_views_are_those_of_torch(
    size: int,
    height: int,
    width: int,
    least: float,
    strengths: tuple[float, ...],
    jitter: float,
    grey: float,
    blurred: float,
    solarized: float,
    flip: float,
    number: int,
    seed: int,
) -> None:
    """Up to float32. A value at the threshold of solarisation may fall on either side, 127 or 128."""
    recipe = recipe_in_bytes(
        size,
        crop_scale=(least, 1.0),
        **dict(zip(("brightness", "contrast", "saturation", "hue"), strengths, strict=True)),
        jitter_p=jitter,
        grayscale_p=grey,
        blur_p=(blurred, blurred),
        solarize_p=(solarized, solarized),
        flip_p=flip,
    )
    images, drawn = noise(5, height, width, seed), chances(seed, 0, np.arange(5), number, recipe.chances)
    views, expected = recipe.view_batch(images, number, drawn), drawn_by_torch(recipe, images, number, drawn)
    assert views.shape == expected.shape
    assert views.is_contiguous(memory_format=torch.channels_last)
    difference = (views - expected).abs()
    at_threshold = (expected - 127.5).abs() < 0.6
    assert difference[~at_threshold].amax().item() < 0.05 if (~at_threshold).any() else True
    assert difference.max() < (1.05 if solarized else 0.05)


@settings(max_examples=40, deadline=None)
@given(size=st.integers(1, 40), height=st.integers(1, 70), width=st.integers(1, 70), seed=st.integers(0, 2**31))
def test_a_crop_in_bytes_is_the_float_crop_rounded(size: int, height: int, width: int, seed: int) -> None:
    recipe = recipe_in_bytes(size)
    images, drawn = noise(1, height, width, seed), chances(seed, 0, [0], 0, recipe.chances)
    in_bytes = recipe.crop(Image.fromarray(images[0].permute(1, 2, 0).contiguous().numpy()), 0, drawn[0])
    assert in_bytes.dtype == torch.uint8
    assert (in_bytes - recipe.crop_batch(images, 0, drawn)[0]).abs().max() < 0.55


def test_crops_of_workers_are_finished_as_torch_does() -> None:
    recipe = recipe_in_bytes(24, blur_p=(0.5, 0.5))
    crops, drawn = noise(64, 24, 24), chances(0, 0, np.arange(64), 0, recipe.chances)
    views, expected = recipe.finish(crops.clone(), 0, drawn), recipe.finish(crops.float(), 0, drawn)
    assert ((views - expected).abs() > 0.05).float().mean() < 1e-3  # of solarised values at the threshold


# Each operation alone, against a statement in float64


def drawn_alone(image: npt.NDArray[np.uint8], size: int, **draw: Any) -> Image64:
    """What the kernel makes of one image (H, W, 3), in [0, 255]: (size, size, 3)."""
    draws = np.zeros(1, DRAW)
    draws["part"], draws["order"] = (0, 0, *image.shape[:2]), -1
    for field, value in draw.items():
        draws[field] = value
    native = kernel()
    assert native is not None
    view = native.views(torch.from_numpy(image)[None].permute(0, 3, 1, 2), draws, size, BYTES, ZERO)
    return view[0].permute(1, 2, 0).double().numpy()


def smooth(size: int = 24) -> npt.NDArray[np.uint8]:
    """A smooth picture with a grey corner, (size, size, 3)."""
    coarse = np.random.default_rng(1).integers(0, 256, (6, 6, 3), np.uint8)
    picture = np.array(Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC))
    picture[:4, :4] = 90
    return picture


def bicubic(x: float) -> float:
    """Keys' kernel with a = -0.5."""
    a, x = -0.5, abs(x)
    if x < 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    return a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a if x < 2 else 0.0


def resized(line: Image64, after: int) -> Image64:
    """A line of pixels resized: antialiased, by a wider kernel where it shrinks."""
    scale = len(line) / after
    widening = max(scale, 1.0)
    rows = []
    for x in range(after):
        weights = np.array([bicubic((i + 0.5 - (x + 0.5) * scale) / widening) for i in range(len(line))])
        rows.append(np.tensordot(weights / weights.sum(), line, 1))
    return np.stack(rows)


@pytest.mark.parametrize("part", [(0, 0, 30, 41), (3, 5, 27, 11), (29, 40, 1, 1), (0, 7, 1, 30), (5, 5, 12, 12)])
@pytest.mark.parametrize("size", [1, 7, 12, 50])
@pytest.mark.parametrize("flip", [0, 1])
def test_a_part_is_cut_out_resized_and_flipped(part: tuple[int, int, int, int], size: int, flip: int) -> None:
    image = np.random.default_rng(0).integers(0, 256, (30, 41, 3), np.uint8)
    top, left, height, width = part
    cut = image[top : top + height, left : left + width].astype(np.float64)
    expected = np.clip(resized(resized(cut, size).swapaxes(0, 1), size).swapaxes(0, 1), 0, 255)
    expected = expected[:, ::-1] if flip else expected
    np.testing.assert_allclose(drawn_alone(image, size, part=part, flip=flip), expected, rtol=0, atol=0.01)


def luma(image: Image64) -> Image64:
    return (image @ [0.299, 0.587, 0.114])[..., None]


def turned(image: Image64, shift: float) -> Image64:
    def pixel(rgb: Image64) -> tuple[float, float, float]:
        hue, saturation, value = colorsys.rgb_to_hsv(*(rgb / 255))
        return colorsys.hsv_to_rgb((hue + shift) % 1, saturation, value)

    return 255 * np.apply_along_axis(lambda rgb: np.array(pixel(rgb)), 2, image)


STATEMENTS: list[Callable[[Image64, float], Image64]] = [
    lambda image, factor: np.clip(image * factor, 0, 255),
    lambda image, factor: np.clip(luma(image).mean() + factor * (image - luma(image).mean()), 0, 255),
    lambda image, factor: np.clip(luma(image) + factor * (image - luma(image)), 0, 255),
    turned,
]
"""Brightness, contrast, saturation, hue."""


@pytest.mark.parametrize("amount", [-0.5, -0.1, 0.0, 0.03, 0.4, 1.0, 1.7])
@pytest.mark.parametrize("kind", range(4))
def test_one_change_of_colour(kind: int, amount: float) -> None:
    if kind == 3 and abs(amount) > 0.5:
        amount = 0.5
    if kind < 3:
        amount = abs(amount)
    image, amounts = smooth(), np.zeros(4, np.float32)
    amounts[kind] = amount
    view = drawn_alone(image, 24, order=[kind, -1, -1, -1], amount=amounts)
    np.testing.assert_allclose(view, STATEMENTS[kind](image.astype(np.float64), amount), rtol=0, atol=1e-3)


@settings(max_examples=30, deadline=None)
@given(order=st.permutations(range(4)), used=st.integers(0, 4), grey=st.booleans())
def test_changes_of_colour_follow_each_other_in_their_order(order: list[int], used: int, grey: bool) -> None:
    image, amounts = smooth(), [1.3, 0.7, 1.2, 0.08]
    view = drawn_alone(image, 24, order=order[:used] + [-1] * (4 - used), amount=amounts, grey=grey)
    expected = image.astype(np.float64)
    for kind in order[:used]:
        expected = STATEMENTS[kind](expected, amounts[kind])
    expected = np.broadcast_to(luma(expected), expected.shape) if grey else expected
    np.testing.assert_allclose(view, expected, rtol=0, atol=2e-3)


@pytest.mark.parametrize("sigma", [0.1, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("size", [1, 5, 24])
def test_blur_alone(sigma: float, size: int) -> None:
    """Against a convolution of the image whose edges go on for eight pixels."""
    image = smooth(24)[:size, :size].copy()
    weights = np.exp(-0.5 * (np.arange(13) / sigma) ** 2)
    view = drawn_alone(image, size, blur=1, gaussian=weights)
    pixels = np.arange(-8, size + 8)
    matrix = np.exp(-0.5 * ((pixels - np.arange(size)[:, None]) / sigma) ** 2)
    matrix /= matrix.sum(axis=1, keepdims=True)
    wide = np.pad(image.astype(np.float64), ((8, 8), (8, 8), (0, 0)), mode="edge")
    expected = np.einsum("yi,xj,ijc->yxc", matrix, matrix, wide)
    np.testing.assert_allclose(view, expected, rtol=0, atol=1e-3)


def test_solarisation_alone() -> None:
    image = smooth()
    expected = np.where(image >= 128, 255 - image, image)
    np.testing.assert_array_equal(drawn_alone(image, 24, solarize=1), expected)


# What must not matter


def test_one_thread_and_more_give_the_same_bits() -> None:
    recipe = BatchedStandardViews(BatchedStandardViewsOptions(blur_p=(0.5, 0.5)), 20, (0.5,) * 3, (0.2,) * 3)
    images, drawn = noise(50, 33, 27), chances(0, 0, np.arange(50), 0, recipe.chances)
    before = torch.get_num_threads()
    try:
        by_threads = []
        for threads in (1, 2, 7):
            torch.set_num_threads(threads)
            by_threads.append(recipe.view_batch(images, 0, drawn))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(by_threads[0], by_threads[1])
    assert torch.equal(by_threads[0], by_threads[2])


def test_how_the_images_lie_in_memory_does_not_matter() -> None:
    recipe = recipe_in_bytes(16)
    images, drawn = noise(6, 20, 31), chances(0, 0, np.arange(6), 0, recipe.chances)
    assert torch.equal(recipe.view_batch(images, 0, drawn), recipe.view_batch(images.contiguous(), 0, drawn))


def test_no_images_have_no_views() -> None:
    recipe = recipe_in_bytes(16)
    assert recipe.view_batch(noise(0, 20, 31), 0, torch.rand(0, recipe.chances)).shape == (0, 3, 16, 16)


@pytest.mark.parametrize("part", [(-1, 0, 5, 5), (0, 6, 5, 5), (0, 0, 11, 5), (0, 0, 0, 5), (2**31 - 1, 0, 5, 5)])
def test_a_part_outside_its_image_is_refused(part: tuple[int, int, int, int]) -> None:
    image = np.zeros((10, 10, 3), np.uint8)
    with pytest.raises(ValueError, match="does not lie inside"):
        drawn_alone(image, 8, part=part)
    draws = np.zeros(1, DRAW)
    draws["part"] = part
    native = kernel()
    assert native is not None
    with pytest.raises(ValueError, match="does not lie inside"):
        native.crop(image, draws, 8)


# Without it


@pytest.fixture
def no_kernel(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine without a kernel, in a process that does not know yet."""
    monkeypatch.setenv(native_library.NO_KERNEL, "1")
    native_library._library.cache_clear()
    kernel.cache_clear()
    yield
    native_library._library.cache_clear()
    kernel.cache_clear()


@pytest.mark.usefixtures("no_kernel")
def test_without_a_kernel_torch_draws_the_views_and_it_is_told_once() -> None:
    recipe = recipe_in_bytes(16)
    images, drawn = noise(6, 20, 31), chances(0, 0, np.arange(6), 0, recipe.chances)
    with pytest.warns(SlowerWarning, match="torch draws the views.* switched off by SSL_DC_NO_KERNEL"):
        views = recipe.view_batch(images, 0, drawn)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.equal(recipe.view_batch(images, 0, drawn), views)
        crop = recipe.crop(Image.fromarray(images[0].permute(1, 2, 0).contiguous().numpy()), 0, drawn[0])
    assert torch.equal(views, drawn_by_torch(recipe, images, 0, drawn))
    assert crop.shape == (3, 16, 16)


@pytest.mark.usefixtures("no_kernel")
def test_processes_that_prepare_images_do_not_tell_it_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(views_kernel, "parent_process", lambda: object())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert kernel() is None


def test_the_kernel_takes_bytes_on_the_cpu_only() -> None:
    assert batched._is_in_bytes_on_cpu(noise(1, 2, 2))
    assert not batched._is_in_bytes_on_cpu(noise(1, 2, 2).float())
    assert not batched._is_in_bytes_on_cpu(noise(1, 2, 2).to("meta"))


# Its memory

HARNESS = r"""
#include KERNEL
#include <stdio.h>

static int between(int least, int most) { return least + rand() % (most - least + 1); }

/* Random cases, each in blocks of memory that are exactly as large as they must be. */
int main(int count, char **arguments) {
    srand(count > 1 ? atoi(arguments[1]) : 0);
    double sum = 0;
    for (int number = 0; number < 3000; number++) {
        int n = between(1, 5), size = between(1, number % 10 ? 20 : 90), side = number % 7 ? 40 : 300;
        int height = between(1, side), width = between(1, side);
        uint8_t *images = malloc((size_t)n * height * width * 3), *part = malloc((size_t)size * size * 3);
        float *views = malloc((size_t)n * size * size * 3 * sizeof(float)), scale[3] = {1, 2, 3}, shift[3] = {0, -1, 1};
        Draw *draws = malloc(n * sizeof(Draw));
        for (size_t i = 0; i < (size_t)n * height * width * 3; i++) images[i] = (uint8_t)rand();
        for (int i = 0; i < n; i++) {
            Draw *draw = draws + i;
            draw->height = between(1, height), draw->width = between(1, width);
            draw->top = between(0, height - draw->height), draw->left = between(0, width - draw->width);
            draw->flip = rand() % 2, draw->grey = rand() % 2, draw->blur = rand() % 2, draw->solarize = rand() % 2;
            for (int c = 0; c < CHANGES; c++) draw->order[c] = between(-1, 3), draw->amount[c] = between(0, 100) / 50.0f;
            draw->amount[HUE] = between(-50, 50) / 100.0f;
            int reach = between(0, REACH);
            for (int o = 0; o <= REACH; o++) draw->gaussian[o] = o > reach ? 0 : 1.0f / (1 + o * o);
        }
        if (ssl_dc_draw_views(images, n, height, width, draws, scale, shift, size, views, between(1, 3))) return 1;
        if (ssl_dc_crop(images, height, width, draws, size, part)) return 1;
        for (size_t i = 0; i < (size_t)n * size * size * 3; i++) {
            if (!(views[i] >= -2 && views[i] <= 770)) return 2;
            sum += views[i];
        }
        for (int i = 0; i < size * size * 3; i++) sum += part[i];
        free(images), free(part), free(views), free(draws);
    }
    printf("%f\n", sum);
}
"""


@pytest.mark.slow
@pytest.mark.parametrize("sanitizers", ["address,undefined", "thread"])
def test_sanitizers_find_no_fault_in_random_cases(sanitizers: str, tmp_path: Path) -> None:
    (tmp_path / "harness.c").write_text(HARNESS)
    program = tmp_path / "harness"
    flags = ["-O1", "-g", "-std=gnu11", "-pthread", f"-fsanitize={sanitizers}", "-fno-sanitize-recover=all"]
    source = f'-DKERNEL="{files("ssl_dc.views").joinpath("kernel.c")}"'
    subprocess.run(["cc", *flags, source, str(tmp_path / "harness.c"), "-o", str(program)], check=True)
    for seed in range(3):
        done = subprocess.run([program, str(seed)], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert float(done.stdout) > 0
