from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ssl_dc.data.base import DataSet, Splits
from ssl_dc.data.digits import ArrayImages, Digits
from ssl_dc.data.options import DigitsOptions
from ssl_dc.data.subsets import Subset, balanced_indices, open_splits
from ssl_dc.plugins.options import DataOptions


@given(
    labels=st.lists(st.integers(0, 5), min_size=1, max_size=80),
    limit=st.integers(0, 100),
    seed=st.integers(0, 2**32),
)
def test_subset_is_as_balanced_as_the_classes_allow(labels: list[int], limit: int, seed: int) -> None:
    classes = np.array(labels, dtype=np.int64)
    chosen = balanced_indices(classes, len(labels), limit, seed)
    assert len(chosen) == min(limit, len(labels))
    assert (np.diff(chosen) > 0).all()
    there = np.bincount(classes, minlength=6)
    taken = np.bincount(classes[chosen], minlength=6)
    # A class that could give more has at most one image less than any other.
    could_give_more = taken[taken < there]
    assert not len(could_give_more) or taken.max() - could_give_more.min() <= 1


@given(n=st.integers(1, 60), limit=st.integers(0, 70), seed=st.integers(0, 1000))
def test_unlabelled_subset_is_a_fixed_random_choice(n: int, limit: int, seed: int) -> None:
    chosen = balanced_indices(None, n, limit, seed)
    assert len(set(chosen.tolist())) == min(limit, n)
    assert chosen.tolist() == sorted(chosen.tolist())
    assert chosen.tolist() == balanced_indices(None, n, limit, seed).tolist()


def test_seed_changes_the_choice() -> None:
    labels = np.repeat(np.arange(5), 100)
    choices = {tuple(balanced_indices(labels, 500, 50, seed).tolist()) for seed in range(5)}
    assert len(choices) == 5


def test_subset_shows_its_images_and_labels() -> None:
    pixels = np.arange(5, dtype=np.uint8).reshape(5, 1, 1, 1).repeat(3, axis=-1)
    subset = Subset(ArrayImages(pixels, np.array([9, 8, 7, 6, 5])), np.array([1, 3]))
    assert len(subset) == 2
    assert subset.image(1).getpixel((0, 0)) == (3, 3, 3)
    assert subset.labels is not None
    assert subset.labels.tolist() == [8, 6]
    assert Subset(ArrayImages(pixels, None), np.array([1])).labels is None


def test_limits_apply_to_each_split_and_keep_train_and_evaluation_train_one() -> None:
    splits = open_splits(Digits(DigitsOptions(limit=103, test_limit=20)))
    assert (len(splits.train), len(splits.test)) == (103, 20)
    assert splits.evaluation_train is splits.train
    assert splits.train.labels is not None
    counts = np.bincount(splits.train.labels)
    assert counts.max() - counts.min() == 1
    assert splits.test.labels is not None
    assert np.bincount(splits.test.labels).tolist() == [2] * 10


def test_no_limit_leaves_the_splits_as_they_are() -> None:
    splits = open_splits(Digits(DigitsOptions(limit=10_000)))
    assert not isinstance(splits.train, Subset)
    assert (len(splits.train), len(splits.test)) == (1437, 360)


def test_limit_applies_to_unlabelled_and_labelled_training_images_alike() -> None:
    class TwoTrainingSets(DataSet):
        def open(self) -> Splits:
            pixels = np.zeros((40, 2, 2, 3), np.uint8)
            labelled = ArrayImages(pixels, np.arange(40) % 4)
            return Splits(ArrayImages(pixels, None), labelled, labelled, tuple("abcd"))

    splits = open_splits(TwoTrainingSets(DataOptions(name="two", limit=8)))
    assert len(splits.train) == len(splits.evaluation_train) == 8
    assert splits.evaluation_train.labels is not None
    assert np.bincount(splits.evaluation_train.labels).tolist() == [2] * 4
    assert len(splits.test) == 40


def test_a_set_that_gets_ready_does_so_as_a_part_too() -> None:
    class Counted(ArrayImages):
        prepared = 0

        def prepare(self) -> None:
            self.prepared += 1

    images = Counted(np.zeros((4, 8, 8, 3), np.uint8), None)
    Subset(images, np.arange(2)).prepare()
    assert images.prepared == 1
