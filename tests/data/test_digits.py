from __future__ import annotations

import hashlib

import numpy as np

from ssl_dc.data.digits import Digits
from ssl_dc.data.options import DigitsOptions


def test_split_is_always_the_same_and_has_every_class_in_both_parts() -> None:
    splits = Digits(DigitsOptions()).open()
    assert (len(splits.train), len(splits.test)) == (1437, 360)
    assert splits.evaluation_train is splits.train
    assert splits.classes == tuple("0123456789")
    train, test = splits.train.labels, splits.test.labels
    assert train is not None
    assert test is not None
    assert np.bincount(test).tolist() == [36, 36, 35, 37, 36, 37, 36, 36, 35, 36]
    pixels = b"".join(splits.test.image(index).tobytes() for index in range(360))
    assert hashlib.sha256(pixels + test.tobytes()).hexdigest()[:16] == "e61346609b6b015f"


def test_images_are_rgb_over_the_whole_range() -> None:
    train = Digits(DigitsOptions()).open().train
    image = train.image(0)
    assert (image.mode, image.size) == ("RGB", (8, 8))
    pixels = np.stack([np.asarray(train.image(index)) for index in range(len(train))])
    assert (pixels.min(), pixels.max()) == (0, 255)
    assert (pixels[..., 0] == pixels[..., 2]).all()
    options = DigitsOptions()
    assert abs(pixels.mean() / 255 - options.mean[0]) < 0.005
    assert abs(pixels.std() / 255 - options.std[0]) < 0.005
