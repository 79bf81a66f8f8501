"""What an augmentation recipe must do: checks on images of noise, of several shapes."""

from __future__ import annotations

import pickle
import random
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ssl_dc.testing.check import Subject, expect, expect_instance
from ssl_dc.views.base import Views

if TYPE_CHECKING:
    from ssl_dc.plugins.options import Colour

SIZES = (16, 33)
SHAPES = ((32, 32), (48, 20), (20, 48), (9, 9))
MEAN: Colour = (0.4, 0.5, 0.6)
STD: Colour = (0.2, 0.25, 0.5)
NUMBERS = (0, 1, 2)
"""Indices of the views that are drawn."""
DRAWS = 8
"""How many views of an image are drawn, since some operations are applied only now and then."""


def is_a_views_recipe(subject: Subject) -> None:
    """What the target builds is an `ssl_dc.Views`."""
    expect_instance(subject.build(SIZES[0], MEAN, STD), Views)


def views_are_float32_of_the_size_asked_for(subject: Subject) -> None:
    """Each view of an image of any shape is finite float32 (3, image_size, image_size); so is a third view."""
    for size in SIZES:
        views: Views = subject.build(size, MEAN, STD)
        for shape in SHAPES:
            for number, side in zip(NUMBERS, views.sizes(size, len(NUMBERS)), strict=True):
                for _ in range(DRAWS):
                    view = views.view(_noise(shape), number)
                    expect(
                        view.dtype is torch.float32 and view.shape == (3, side, side) and bool(view.isfinite().all()),
                        f"expected view {number} of an image of {shape[0]}x{shape[1]} to be finite float32 of the shape"
                        f" (3, {side}, {side}), saw {view.dtype} {tuple(view.shape)}",
                    )


def views_depend_on_torchs_seed_alone(subject: Subject) -> None:
    """The same seed of torch's generator gives the same view, whatever the state of Python's and NumPy's generators."""
    views: Views = subject.build(SIZES[0], MEAN, STD)
    for seed in range(DRAWS):
        for number in NUMBERS:
            first = _view(views, number, seed)
            random.seed(seed + 1000)
            np.random.seed(seed + 1000)
            expect(
                torch.equal(first, _view(views, number, seed)),
                f"expected the same view {number} from the same seed of torch's generator, saw another",
            )


def views_are_normalised(subject: Subject) -> None:
    """Pixels in [0, 1] become (pixel - mean) / std, with the mean and standard deviation that it is built with."""
    plain: Views = subject.build(SIZES[0], (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    normalised: Views = subject.build(SIZES[0], MEAN, STD)
    for seed in range(DRAWS):
        pixels = _view(plain, 0, seed)
        expect(
            bool((pixels >= -1e-4).all() and (pixels <= 1 + 1e-4).all()),
            f"expected pixels in [0, 1] for mean 0 and std 1, saw {pixels.min():g} to {pixels.max():g}",
        )
        expected = (pixels - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
        off = float((_view(normalised, 0, seed) - expected).abs().max())
        expect(off < 1e-3, f"expected (pixel - mean) / std, saw values off by {off:g}")


def the_image_is_left_as_it_is(subject: Subject) -> None:
    """Drawing a view does not change the image, since other views of it follow."""
    views: Views = subject.build(SIZES[0], MEAN, STD)
    image, untouched = _noise(SHAPES[0]), _noise(SHAPES[0]).tobytes()
    for number in NUMBERS * DRAWS:
        views.view(image, number)
        expect(image.tobytes() == untouched, f"expected the image to be left as it is by view {number}, saw it changed")


def it_can_be_sent_to_worker_processes(subject: Subject) -> None:
    """It can be pickled, as worker processes of a DataLoader require, and the copy draws the same views."""
    views: Views = subject.build(SIZES[0], MEAN, STD)
    copy = pickle.loads(pickle.dumps(views))  # noqa: S301  # what was pickled in the same line
    for seed in range(DRAWS):
        expect(
            torch.equal(_view(views, 1, seed), _view(copy, 1, seed)),
            "expected a pickled copy to draw the same view, saw another",
        )


def _view(views: Views, number: int, seed: int) -> Tensor:
    torch.manual_seed(seed)
    return views.view(_noise(SHAPES[0]), number)


def _noise(shape: tuple[int, int]) -> Image.Image:
    width, height = shape
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8))


CHECKS = (
    is_a_views_recipe,
    views_are_float32_of_the_size_asked_for,
    views_depend_on_torchs_seed_alone,
    views_are_normalised,
    the_image_is_left_as_it_is,
    it_can_be_sent_to_worker_processes,
)
