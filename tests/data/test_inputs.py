"""Pictures in whatever form a caller has them: the same picture, the same features."""

from __future__ import annotations

import pickle
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import ssl_dc
from ssl_dc import Model, Route
from ssl_dc.config import resolve, uniform_layer
from ssl_dc.data.inputs import picture_of, pictures_in, pictures_of, transformed
from ssl_dc.errors import DataError
from ssl_dc.views.pixels import evaluation_transform

PIXELS = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
GREY = PIXELS[..., 0]
TENSOR = torch.from_numpy(PIXELS).permute(2, 0, 1)
transform = partial(transformed, transform=evaluation_transform(16, (0.5, 0.4, 0.3), (0.25, 0.5, 0.2)))
EXPECTED = (torch.from_numpy(PIXELS).permute(2, 0, 1) / 255 - torch.tensor([0.5, 0.4, 0.3]).view(3, 1, 1)) / torch.tensor(
    [0.25, 0.5, 0.2]
).view(3, 1, 1)

COLOURED: dict[str, Any] = {
    "a PIL image": Image.fromarray(PIXELS),
    "a PIL image with opacity": Image.fromarray(PIXELS).convert("RGBA"),
    "uint8": PIXELS,
    "uint8 with opacity": np.concatenate([PIXELS, np.full((16, 16, 1), 255, np.uint8)], axis=2),
    "uint16": PIXELS.astype(np.uint16) * 257,
    "float64": PIXELS / 255,
    "float32": (PIXELS / 255).astype(np.float32),
    "float16": (PIXELS / 255).astype(np.float16),
    "in another order in memory": np.asfortranarray(PIXELS),
    "a tensor": TENSOR,
    "a tensor of floats": TENSOR / 255,
}


@pytest.mark.parametrize("picture", COLOURED.values(), ids=COLOURED.keys())
def test_one_picture_in_any_form_is_the_same_to_the_network(picture: Any) -> None:
    assert transform(picture).shape == (3, 16, 16)
    torch.testing.assert_close(transform(picture), EXPECTED)


@pytest.mark.parametrize(
    "grey", [GREY, GREY[..., None], GREY.astype(np.uint16) << 8, Image.fromarray(GREY), torch.from_numpy(GREY), GREY / 255]
)
def test_a_grey_picture_has_three_equal_channels(grey: Any) -> None:
    assert np.array_equal(np.asarray(picture_of(grey)), np.repeat(GREY[..., None], 3, axis=2))


def test_numbers_of_few_bits_keep_what_they_have() -> None:
    assert np.array_equal(np.asarray(picture_of(GREY > 100))[..., 0], (GREY > 100) * np.uint8(255))
    half = torch.from_numpy(GREY / 255).to(torch.bfloat16)
    assert np.abs(np.asarray(picture_of(half))[..., 0].astype(int) - GREY).max() <= 1


def test_what_is_transparent_shows_the_background() -> None:
    clear = np.concatenate([PIXELS, np.zeros((16, 16, 1), np.uint8)], axis=2)
    assert (np.asarray(picture_of(clear)) == 255).all()


def test_paths_are_read_and_a_folder_is_its_pictures_in_order(tmp_path: Path) -> None:
    for number, name in enumerate(("b.png", "a/2.png", "a/1.png")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (4, 4), (number, 0, 0)).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("words")
    assert [Path(path).relative_to(tmp_path).as_posix() for path in pictures_in(tmp_path)] == [
        "a/1.png",
        "a/2.png",
        "b.png",
    ]
    assert [picture.getpixel((0, 0))[0] for picture in pictures_of(tmp_path)] == [2, 1, 0]  # type: ignore[index]
    for path in (tmp_path / "b.png", str(tmp_path / "b.png")):
        assert picture_of(path).getpixel((0, 0)) == (0, 0, 0)
    with pytest.raises(DataError, match=r"notes\.txt cannot be read"):
        transform(tmp_path / "notes.txt")
    with pytest.raises(DataError, match="there is no folder"):
        pictures_in(tmp_path / "none")


def test_many_pictures_are_a_batch() -> None:
    both = [PIXELS, Image.fromarray(PIXELS)]
    stacked = np.stack([PIXELS, PIXELS])
    for many in (both, tuple(both), stacked, torch.stack([TENSOR, TENSOR])):
        torch.testing.assert_close(transform(many), torch.stack([EXPECTED, EXPECTED]))


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        (7, TypeError, "a picture is a path, a PIL image, .*; not int"),
        (None, TypeError, "not NoneType"),
        (b"bytes", TypeError, "not bytes"),
        ([PIXELS, 7], TypeError, "not int"),
        ([], ValueError, "no pictures in this list"),
        (PIXELS.astype(np.int64), ValueError, "floats from 0 to 1; not int64"),
        (PIXELS.astype(np.float32), ValueError, "from 0 to 1, not from 0 to 255"),
        (EXPECTED, ValueError, "goes to model.dense or model.gated as it is"),
        (np.full((4, 4), np.nan), ValueError, "from 0 to 1, not from nan"),
        (PIXELS.transpose(2, 0, 1), ValueError, r"numpy array \(H, W, C\) has 1, 3 or 4 channels .* not \(3, 16, 16\)"),
        (TENSOR.permute(1, 2, 0), ValueError, r"tensor \(C, H, W\) has 1, 3 or 4 channels .* not \(16, 16, 3\)"),
        (np.zeros((0, 4, 3), np.uint8), ValueError, "at least one pixel"),
        (np.zeros((4, 4, 2), np.uint8), ValueError, "1, 3 or 4 channels"),
        (np.zeros((4,), np.uint8), ValueError, "1, 3 or 4 channels"),
    ],
)
def test_what_is_no_picture_is_one_message_in_words(given: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        transform(given)


def test_the_transform_can_be_sent_to_another_process() -> None:
    assert torch.equal(pickle.loads(pickle.dumps(transform))(PIXELS), transform(PIXELS))


def test_an_image_that_was_turned_is_not_turned_again(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[274] = 6
    Image.new("RGB", (6, 4)).save(tmp_path / "a.jpg", exif=exif)
    once = picture_of(tmp_path / "a.jpg")
    assert picture_of(once).size == once.size == (4, 6)


@pytest.fixture(scope="module")
def model() -> Model:
    settings = {"data.name": "digits", "backbone.width": 4, "objective.expander_width": 8}
    return Model.untrained(resolve([uniform_layer(settings, "test")]).config)


@pytest.mark.parametrize("route", ["dense", "gated"])
def test_features_of_pictures_are_those_of_what_the_transform_makes_of_them(
    model: Model, route: str, tmp_path: Path
) -> None:
    paths = []
    for number in range(5):
        noise = np.random.default_rng(number).integers(0, 256, (20, 30, 3), np.uint8)
        paths.append(tmp_path / f"{number}.png")
        Image.fromarray(noise).save(paths[-1])
    prepared = model.transform(paths)
    expected = model.dense(prepared) if route == "dense" else model.gated(prepared).features
    arrays = [np.asarray(Image.open(path)) for path in paths]
    tensors = torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2)
    for given in (tmp_path, str(tmp_path), paths, arrays, np.stack(arrays), tensors, prepared):
        for batch_size in (2, 64):
            torch.testing.assert_close(model.features(given, route, batch_size=batch_size), expected)
    torch.testing.assert_close(model.features(paths[0], Route.parse(route)), expected[:1])
    torch.testing.assert_close(model.features(Image.open(paths[0]), route), expected[:1])


def test_features_of_nothing_and_by_no_route_are_messages(model: Model, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"no pictures in {tmp_path}"):
        model.features(tmp_path)
    with pytest.raises(ValueError, match="not 'sparse'"):
        model.features(PIXELS, "sparse")
    assert ssl_dc.pictures_in(tmp_path) == []
