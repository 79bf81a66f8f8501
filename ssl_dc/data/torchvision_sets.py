"""The data sets that torchvision knows: CIFAR-10, CIFAR-100, STL-10."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from torchvision import datasets

from ssl_dc.data.base import DataSet, Splits
from ssl_dc.data.digits import ArrayImages
from ssl_dc.errors import DataError
from ssl_dc.plugins.options import DataOptions

DEFAULT_ROOT = Path("data")
"""Where the files are if the options do not say: a folder in the working directory."""


def _load(name: str, files: str, options: DataOptions, read: Callable[..., Any], **split: Any) -> Any:
    """Have torchvision read one split.

    Args:
        name: The data set's name, for messages.
        files: The folder in the root that torchvision keeps the data in.
        options: The root; whether to download.
        read: Torchvision's class.
        **split: The arguments of that class that choose the split.

    Raises:
        DataError: If the files are not there or not whole, or cannot be downloaded.
    """
    root = (options.root or DEFAULT_ROOT).absolute()
    try:
        return read(root=str(root), download=options.download, **split)
    # Torchvision answers missing and damaged files with RuntimeError, network and disk failures with OSError.
    except (RuntimeError, OSError) as error:
        if options.download:
            raise DataError(f"{name} could not be downloaded to {root}: {error}.") from error
        raise DataError(
            f"{name} is not whole or not there: looked for {root / files}; "
            f"pass --download to download it there, or --data-root FOLDER if the folder {files} is elsewhere."
        ) from error


def _cifar(name: str, files: str, options: DataOptions, read: Callable[..., Any]) -> Splits:
    train, test = (_load(name, files, options, read, train=is_train) for is_train in (True, False))
    train_images = ArrayImages(train.data, np.asarray(train.targets, dtype=np.int64))
    return Splits(
        train=train_images,
        evaluation_train=train_images,
        test=ArrayImages(test.data, np.asarray(test.targets, dtype=np.int64)),
        classes=tuple(train.classes),
    )


class Cifar10(DataSet):
    """The data set ``cifar10``: 50,000 images to train on and 10,000 held out, 32x32, 10 classes."""

    def open(self) -> Splits:
        """The two splits of CIFAR-10.

        Raises:
            DataError: If it is not there or cannot be downloaded.
        """
        return _cifar("CIFAR-10", "cifar-10-batches-py", self.options, datasets.CIFAR10)


class Cifar100(DataSet):
    """The data set ``cifar100``: 50,000 images to train on and 10,000 held out, 32x32, 100 classes."""

    def open(self) -> Splits:
        """The two splits of CIFAR-100.

        Raises:
            DataError: If it is not there or cannot be downloaded.
        """
        return _cifar("CIFAR-100", "cifar-100-python", self.options, datasets.CIFAR100)


class Stl10(DataSet):
    """The data set ``stl10``: 100,000 unlabelled images, 5,000 and 8,000 labelled ones, 96x96."""

    def open(self) -> Splits:
        """The three splits of STL-10: ``unlabeled``, ``train`` and ``test``.

        Raises:
            DataError: If it is not there or cannot be downloaded.
        """
        unlabelled, train, test = (
            _load("STL-10", "stl10_binary", self.options, datasets.STL10, split=split)
            for split in ("unlabeled", "train", "test")
        )
        return Splits(
            train=ArrayImages(_channels_last(unlabelled), None),
            evaluation_train=ArrayImages(_channels_last(train), train.labels.astype(np.int64)),
            test=ArrayImages(_channels_last(test), test.labels.astype(np.int64)),
            classes=tuple(train.classes),
        )


def _channels_last(split: Any) -> Any:
    """An STL-10 split as (n, 96, 96, 3); torchvision holds (n, 3, 96, 96). No copy: it is 2.7 GB."""
    return np.moveaxis(split.data, 1, -1)
