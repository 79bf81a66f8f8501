from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from helpers.forked import run_forked
from ssl_dc.data.digits import Digits, stratified_split
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


@given(st.lists(st.integers(0, 5), min_size=20, max_size=60), st.integers(6, 14), st.integers(0, 99))
def test_the_split_is_scikit_learns(classes: list[int], held_out: int, seed: int) -> None:
    from sklearn.model_selection import train_test_split

    _, labels = np.unique(classes, return_inverse=True)
    assume(np.bincount(labels).min() > 1)
    expected = train_test_split(np.arange(len(labels)), test_size=held_out, stratify=labels, random_state=seed)
    for ours, theirs in zip(stratified_split(labels, held_out, seed), expected, strict=True):
        assert ours.tolist() == theirs.tolist()


def test_a_scikit_learn_that_keeps_its_file_elsewhere_is_asked_for_the_images(monkeypatch: pytest.MonkeyPatch) -> None:
    before = Digits(DigitsOptions()).open().test
    monkeypatch.setattr(Path, "is_file", lambda _: False)
    assert Digits(DigitsOptions()).open().test.fingerprint() == before.fingerprint()


def test_the_images_are_read_without_importing_scikit_learn() -> None:
    words = (
        "import sys; from ssl_dc.data.digits import *; from ssl_dc.data.options import *; Digits(DigitsOptions()).open()"
    )
    said = run_forked(f"{words}; print(any(name.startswith('sklearn.') for name in sys.modules))")
    assert said.stdout == "False\n", said.stderr
