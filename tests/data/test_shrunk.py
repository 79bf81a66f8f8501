"""Large pictures are shrunk once, and are the same whether they are kept or read again."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torch import Tensor

from helpers.settings import SHORT, config_of
from ssl_dc.assemble import build_data_set
from ssl_dc.data.base import ImageSet, Labels
from ssl_dc.data.folder import FolderImages
from ssl_dc.data.shrunk import Shrunk
from ssl_dc.data.subsets import open_splits
from ssl_dc.data.unreadable import Readable
from ssl_dc.errors import DataError
from ssl_dc.training.from_config import trainer_from_config
from ssl_dc.views.standard import StandardViews

SIZES = [(40, 20), (20, 60), (8, 9), (100, 100), (31, 30)]


class OfSizes(ImageSet):
    """Images of noise of several sizes; the one in the middle cannot be read."""

    def __init__(self, broken: int | None = None) -> None:
        self.asked = 0
        self.broken = broken

    @property
    def labels(self) -> Labels | None:
        return None

    def __len__(self) -> int:
        return len(SIZES)

    def image(self, index: int) -> Image.Image:
        self.asked += 1
        if index == self.broken:
            raise DataError(f"image {index} is broken.")
        width, height = SIZES[index]
        pixels = np.random.default_rng(index).integers(0, 256, (height, width, 3), dtype=np.uint8)
        return Image.fromarray(pixels)


def pixels(image: Image.Image) -> list[int]:
    return np.asarray(image).ravel().tolist()


def test_the_shorter_side_is_shrunk_and_smaller_images_stay_as_they_are() -> None:
    shrunk = Shrunk(OfSizes(), 10)
    assert [shrunk.image(index).size for index in range(5)] == [(20, 10), (10, 30), (8, 9), (10, 10), (10, 10)]
    assert pixels(shrunk.image(2)) == pixels(OfSizes().image(2))
    assert shrunk.size(3) == (100, 100), "what is asked of the set is how it is stored"
    assert shrunk.fingerprint() == OfSizes().fingerprint()
    # an average over the area: each pixel of half the size is the mean of four
    whole = np.asarray(OfSizes().image(0), float)
    halves = whole.reshape(10, 2, 20, 2, 3).mean(axis=(1, 3))
    assert np.abs(np.asarray(shrunk.image(0)) - halves).max() <= 1


def test_what_is_kept_is_what_is_read() -> None:
    images = OfSizes()
    shrunk = Shrunk(images, 10)
    read = [pixels(shrunk.image(index)) for index in range(5)]
    shrunk.prepare()
    asked = images.asked
    assert [pixels(shrunk.image(index)) for index in range(5)] == read
    shrunk.prepare()
    assert images.asked == asked, "nothing is read a second time"
    copied = pickle.loads(pickle.dumps(shrunk))  # our own bytes, as they go to a worker
    assert [pixels(copied.image(index)) for index in range(5)] == read


def test_a_broken_image_is_left_to_whoever_asks_for_it() -> None:
    shrunk = Shrunk(OfSizes(broken=2), 10)
    shrunk.prepare()
    assert shrunk.image(3).size == (10, 10)
    with pytest.raises(DataError, match="image 2 is broken"):
        shrunk.image(2)
    readable = Readable(shrunk)
    readable.prepare()
    assert pixels(readable.image(2)) == pixels(shrunk.image(3))
    assert readable.left_out() == ["image 2 is broken."]


@pytest.mark.long
def test_a_training_on_shrunk_pictures_decodes_each_once_and_evaluates_them_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(40):
        folder = tmp_path / "photos" / "train" / "ab"[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 256, (64, 48, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    decoded: list[str] = []
    drawn: list[tuple[int, int]] = []
    read, view = FolderImages.image, StandardViews.view

    def counted_read(self: FolderImages, index: int) -> Image.Image:
        decoded.append(self._paths[index])
        return read(self, index)

    def counted_view(self: StandardViews, image: Image.Image, number: int) -> Tensor:
        drawn.append(image.size)
        return view(self, image, number)

    monkeypatch.setattr(FolderImages, "image", counted_read)
    monkeypatch.setattr(StandardViews, "view", counted_view)
    settings = {**SHORT, "data.name": "folder", "data.root": str(tmp_path / "photos"), "data.shrink": 24}
    config = config_of({**settings, "training.epochs": 3})
    splits = open_splits(build_data_set(config))
    trainer_from_config(config, splits.train).fit()
    assert sorted(decoded) == sorted(set(decoded)), "each is decoded once"
    assert len(decoded) == 32
    assert set(drawn) == {(24, 32)}
    assert splits.evaluation_train.image(0).size == (48, 64)
