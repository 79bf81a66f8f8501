"""What a data set must do: checks on its images. They do not apply where the images are not on this machine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import ConcatDataset, DataLoader, Subset

from ssl_dc.data.base import DataSet, ImageSet, Splits
from ssl_dc.data.prepared import Prepared
from ssl_dc.data.subsets import open_splits
from ssl_dc.errors import DataError
from ssl_dc.testing.check import DoesNotApplyError, Subject, expect, expect_instance

LOOKED_AT = 6
"""How many images of each split are opened, spread from the first to the last."""


def is_a_data_set(subject: Subject) -> None:
    """What the target builds is an `ssl_dc.DataSet`."""
    expect_instance(subject.build(), DataSet)


def what_is_missing_is_a_data_error(subject: Subject) -> None:
    """If the folder does not exist, `open` raises a `DataError` that names it, unless the data set needs no folder."""
    missing = "a-folder-that-does-not-exist"
    options = subject.options.model_copy(update={"root": Path(missing), "download": False})
    try:
        subject.registered.target()(options).open()
    except DataError as error:
        expect(missing in str(error), f"expected a message that names the folder {missing!r}, saw: {error}")


def there_are_images_to_train_and_to_test_on(subject: Subject) -> None:
    """Each split is an `ImageSet` with images, and the test images are another set than the training images."""
    splits = _splits(subject)
    for name, images in _image_sets(splits):
        expect(isinstance(images, ImageSet), f"expected {name} to be an ssl_dc.data.base.ImageSet, saw {images!r}")
        expect(len(images) > 0, f"expected images in {name}, saw none")
    expect(
        splits.test is not splits.train and splits.test is not splits.evaluation_train,
        "expected test images that are held out, saw the set that is trained on",
    )


def labels_are_numbers_of_classes(subject: Subject) -> None:
    """Labels are int64, one for each image, from 0 to the number of classes minus 1; None if a split has no labels."""
    splits = _splits(subject)
    expect(
        all(isinstance(name, str) for name in splits.classes) and len(set(splits.classes)) == len(splits.classes),
        f"expected names of classes that differ, saw {splits.classes!r}",
    )
    for name, images in _image_sets(splits):
        labels = images.labels
        if labels is None:
            continue
        kind, shape = getattr(labels, "dtype", type(labels).__name__), getattr(labels, "shape", None)
        expect(
            kind == np.int64 and shape == (len(images),),
            f"expected {len(images)} labels of int64 in {name}, saw {kind} of the shape {shape}",
        )
        expect(
            labels.min() >= 0 and labels.max() < len(splits.classes),
            f"expected labels from 0 to {len(splits.classes) - 1} in {name}, saw {labels.min()} to {labels.max()}",
        )


def images_are_pil_images_in_rgb(subject: Subject) -> None:
    """Each image is a PIL image in RGB, whatever mode its file has."""
    for name, images in _image_sets(_splits(subject)):
        for index in _some(images):
            image = images.image(index)
            expect(
                isinstance(image, Image.Image) and image.mode == "RGB",
                f"expected image {index} of {name} to be a PIL image in RGB, saw {getattr(image, 'mode', image)!r}",
            )


def an_index_is_always_the_same_image(subject: Subject) -> None:
    """An index gives the same image and label each time, also after the data set is opened again."""
    for (name, images), (_, again) in zip(_image_sets(_splits(subject)), _image_sets(_splits(subject)), strict=True):
        expect(len(images) == len(again), f"expected {len(images)} images in {name} again, saw {len(again)}")
        expect(_equal(images.labels, again.labels), f"expected the same labels in {name} when opened again, saw others")
        for index in _some(images):
            first = _pixels(images, index)
            for seen, when in ((_pixels(images, index), "the second time"), (_pixels(again, index), "when opened again")):
                expect(_equal(first, seen), f"expected the same image {index} of {name} {when}, saw another")


def worker_processes_read_the_same_images(subject: Subject) -> None:
    """A worker process of a DataLoader, given the open data set, reads the same images."""
    chosen = [(name, images, index) for name, images in _image_sets(_splits(subject)) for index in _some(images)]
    parts: ConcatDataset[Tensor] = ConcatDataset(
        [Subset(Prepared(images, _checksum), [index]) for _, images, index in chosen]
    )
    loader = DataLoader(parts, batch_size=None, num_workers=1)
    for (name, images, index), seen in zip(chosen, loader, strict=True):
        same = torch.equal(seen, _checksum(images.image(index)))
        expect(same, f"expected image {index} of {name} from a worker process too, saw another one")


def a_limit_is_kept(subject: Subject) -> None:
    """With `limit` and `test_limit`, `ssl_dc.open_splits` gives that many images."""
    _splits(subject)
    options = subject.options.model_copy(update={"limit": 3, "test_limit": 2})
    splits = open_splits(subject.registered.target()(options))
    for name, images, limit in (
        ("train", splits.train, 3),
        ("evaluation_train", splits.evaluation_train, 3),
        ("test", splits.test, 2),
    ):
        expect(len(images) <= limit, f"expected at most {limit} images in {name}, saw {len(images)}")


def _splits(subject: Subject) -> Splits:
    data_set: DataSet = subject.build()
    try:
        return data_set.open()
    except DataError as error:
        raise DoesNotApplyError(f"data not there: {error}") from None


def _image_sets(splits: Splits) -> Iterator[tuple[str, ImageSet]]:
    yield from (("train", splits.train), ("evaluation_train", splits.evaluation_train), ("test", splits.test))


def _some(images: ImageSet) -> list[int]:
    """Indices of some images, from the first to the last."""
    return sorted({int(index) for index in np.linspace(0, len(images) - 1, LOOKED_AT)})


def _pixels(images: ImageSet, index: int) -> npt.NDArray[np.uint8]:
    return np.asarray(images.image(index))


def _equal(one: npt.NDArray[np.generic] | None, other: npt.NDArray[np.generic] | None) -> bool:
    if one is None or other is None:
        return one is other
    return np.array_equal(one, other)


def _checksum(image: Image.Image) -> Tensor:
    """A checksum of an image, small enough for a worker to send at once: the sum of each pixel times its place."""
    pixels = np.asarray(image).astype(np.int64).ravel()
    return torch.tensor(int((pixels * np.arange(1, len(pixels) + 1)).sum()))


CHECKS = (
    is_a_data_set,
    what_is_missing_is_a_data_error,
    there_are_images_to_train_and_to_test_on,
    labels_are_numbers_of_classes,
    images_are_pil_images_in_rgb,
    an_index_is_always_the_same_image,
    worker_processes_read_the_same_images,
    a_limit_is_kept,
)
