"""Data sets: a few coloured squares, with and without labels, and faulty ones."""

from __future__ import annotations

import numpy as np
from PIL import Image

from ssl_dc import DataSet
from ssl_dc.data.base import ImageSet, Splits


class Squares(ImageSet):
    def __init__(self, count, labels):
        self.count = count
        self._labels = labels

    @property
    def labels(self):
        return self._labels

    def __len__(self):
        return self.count

    def image(self, index):
        return Image.new("RGB", (10, 10), (20 * index, 255 - 20 * index, 100))


class Colours(DataSet):
    images_class: type[ImageSet] = Squares

    def squares(self, count):
        return self.images_class(count, np.arange(count, dtype=np.int64) % 2)

    def open(self):
        train = self.squares(9)
        return Splits(train, train, self.squares(4), ("even", "odd"))


class Unlabelled(Colours):
    def open(self):
        return super().open()._replace(train=Squares(7, None))


class GreySquares(Squares):
    def image(self, index):
        return super().image(index).convert("L")


class GreyImages(Colours):
    images_class = GreySquares


class LabelsFromOne(Colours):
    def squares(self, count):
        return Squares(count, np.arange(count, dtype=np.int64) % 2 + 1)


class NoisySquares(Squares):
    generator = np.random.default_rng(0)

    def image(self, index):
        noise = self.generator.integers(0, 256, (10, 10, 3), np.uint8)
        return Image.blend(super().image(index), Image.fromarray(noise), 0.5)


class NewNoiseEachTime(Colours):
    images_class = NoisySquares


class TestIsTrain(Colours):
    __test__ = False  # not a class of tests

    def open(self):
        splits = super().open()
        return splits._replace(test=splits.train)


class CrashesWithoutFolder(Colours):
    def open(self):
        if self.options.root is not None:
            next(self.options.root.iterdir())
        return super().open()
