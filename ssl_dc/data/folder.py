"""One's own pictures as files, in whatever folders they lie."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from ssl_dc.data.base import DataSet, Found, ImageSet, Labels, LeftOut, Splits
from ssl_dc.data.held_out import described, labelled_splits, unlabelled_splits
from ssl_dc.data.listing import pictures_below
from ssl_dc.data.options import FolderOptions
from ssl_dc.data.pictures import read_rgb, read_size
from ssl_dc.errors import DataError
from ssl_dc.plugins.options import root_given
from ssl_dc.printable import name_of

_HELD_OUT = ("test", "val", "validation", "valid")
"""Names of the folder that holds images out. The first that has classes is taken."""
_LAYOUT = "pictures in any folders, or with labels: train/CLASS/*.jpg and val/CLASS/*.jpg"


class FolderImages(ImageSet):
    """Image files.

    Args:
        paths: The files.
        labels: Their classes, (n,) int64, or None.
    """

    def __init__(self, paths: Sequence[str], labels: Labels | None) -> None:
        self._paths = tuple(paths)
        self._labels = labels

    @property
    def labels(self) -> Labels | None:
        """Class of each image, (n,) int64, or None."""
        return self._labels

    def __len__(self) -> int:
        return len(self._paths)

    def image(self, index: int) -> Image.Image:
        """The image of that number, in RGB.

        Raises:
            DataError: If the file cannot be read.
        """
        return read_rgb(self._paths[index], self._paths[index])

    def name(self, index: int) -> str:
        """The path of the file."""
        return self._paths[index]

    def size(self, index: int) -> tuple[int, int]:
        """Width and height of the image of that number, from the head of its file.

        Raises:
            DataError: If the file cannot be read.
        """
        return read_size(self._paths[index], self._paths[index])

    def fingerprint(self) -> str:
        """Of every file's place in the folder, size and class."""
        digest = hashlib.sha256()
        common = os.path.commonpath([os.path.dirname(path) for path in self._paths]) if self._paths else None
        for number, path in enumerate(self._paths):
            label = "" if self._labels is None else self._labels[number]
            try:
                size = os.stat(path).st_size
            except OSError:
                size = -1
            digest.update(f"{os.path.relpath(path, common)}\0{size}\0{label}\n".encode("utf-8", "surrogateescape"))
        return digest.hexdigest()


class Folder(DataSet):
    """The data set ``folder``: the pictures in a folder and in the folders below it.

    Labels are taken from one layout only: ``train/CLASS/``, with at least two classes, and beside it ``val/CLASS/`` (or
    ``test``, ``validation``, ``valid``; the first of them that has classes). Without such a folder a share of each class is
    held out. In every other layout the pictures have no labels, and a share of them is held out to calibrate gates and to
    measure cost. A folder ``train`` without classes is trained on alone; ``val`` or ``test`` beside it is held out.

    Args:
        options: The folder; the share to hold out.
    """

    options: FolderOptions

    def open(self) -> Splits:
        """List the pictures.

        Raises:
            DataError: If the root is not given or not a folder, if it holds no pictures, or if a class is held out that
                has no training images.
        """
        root = _root(self.options)
        train = _subfolder(root, ("train",))
        splits = self._labelled(root, train) if train else None
        return splits or self._unlabelled(train or root, _subfolder(root, _HELD_OUT) if train else None)

    def _labelled(self, root: Path, train: Path) -> Splits | None:
        """The splits of a root whose folder ``train`` has classes; None if it has none."""
        left_out = LeftOut()
        held_out, where = _held_out_by_class(root, left_out, train)
        of_class, loose = _by_class(train, left_out, apart_from=[str(root / where)] if where else [])
        if len(of_class) < 2 or (loose and not held_out):
            return None
        for path in loose:
            left_out.add("beside the classes", path, f"it is in none of the class folders of {train}")
        unknown = sorted(held_out.keys() - of_class.keys())
        if unknown:
            raise DataError(
                f"folder {root / where} has classes that are not in 'train': {', '.join(map(name_of, unknown))};"
                f" 'train' has {', '.join(map(name_of, of_class))}."
            )
        classes = tuple(of_class)
        images = _labelled_images(of_class, classes)
        if held_out:
            splits = Splits(images, images, _labelled_images(held_out, classes), classes)
        else:
            splits = labelled_splits(images, classes, self.options.hold_out)
            where = f"{self.options.hold_out:g} of each class, since there is no folder val"
        return splits._replace(found=Found(f"{root}: {described(splits)} ({where})", left_out))

    def _unlabelled(self, place: Path, beside: Path | None) -> Splits:
        """The splits of a folder without classes, and of the one beside it that holds images out."""
        left_out = LeftOut()
        pictures = pictures_below(str(place), left_out, apart_from=[str(beside)] if beside else [])
        broken = left_out.reasons.get("broken", {})
        if not pictures:
            raise DataError(f"folder {place} holds no pictures{_in_brackets(left_out)}; it should hold {_LAYOUT}.")
        if broken and self.options.bad_images == "stop":
            path, reason = next(iter(broken.items()))
            raise DataError(f"image {path} cannot be read: {reason}. With --bad-images skip, it is left out.")
        held_out = None
        if beside:
            held_out = FolderImages(pictures_below(str(beside), left_out, apart_from=[str(place)]), None)
        splits = unlabelled_splits(FolderImages(pictures, None), held_out, self.options.hold_out, f"folder {place}")
        return splits._replace(found=Found(f"{place}: {described(splits)}", left_out))


def _root(options: FolderOptions) -> Path:
    root = options.root
    if root is None:
        raise DataError(f"data set 'folder' needs --data-root FOLDER, a folder that holds {_LAYOUT}.")
    if not root.is_dir():
        what = "is not a folder" if root.exists() else "is not there"
        raise DataError(
            f"folder {root.absolute()} ({root_given(options)}) {what}; it should be a folder that holds {_LAYOUT}."
        )
    return root.absolute()


def _subfolder(root: Path, names: Sequence[str]) -> Path | None:
    """The first of these folders that is in the root."""
    return next((root / name for name in names if (root / name).is_dir()), None)


def _held_out_by_class(root: Path, left_out: LeftOut, train: Path) -> tuple[dict[str, list[str]], str]:
    """The images held out, by class, and the name of their folder: the first that has classes, if any has."""
    for name in _HELD_OUT:
        if (root / name).is_dir():
            of_folder = LeftOut()
            of_class, loose = _by_class(root / name, of_folder, apart_from=[str(train)])
            if of_class:
                for path in loose:
                    of_folder.add("beside the classes", path, f"it is in none of the class folders of {root / name}")
                left_out.take_up(of_folder)
                return of_class, name
    return {}, ""


def _by_class(split: Path, left_out: LeftOut, apart_from: Sequence[str]) -> tuple[dict[str, list[str]], list[str]]:
    """The paths of the images in each class folder of a split, in the order of the names, and of those in none."""
    of_class: dict[str, list[str]] = {}
    loose = []
    for path in pictures_below(str(split), left_out, trust_endings=True, apart_from=apart_from):
        name, inside, _ = os.path.relpath(path, split).partition(os.sep)
        if inside:
            of_class.setdefault(name, []).append(path)
        else:
            loose.append(path)
    return {name: of_class[name] for name in sorted(of_class)}, loose


def _labelled_images(of_class: dict[str, list[str]], classes: tuple[str, ...]) -> FolderImages:
    """The images of each class, with the numbers of their classes."""
    numbers = {name: number for number, name in enumerate(classes)}
    paths = [path for images in of_class.values() for path in images]
    labels = [numbers[name] for name, images in of_class.items() for _ in images]
    return FolderImages(paths, np.array(labels, dtype=np.int64))


def _in_brackets(left_out: LeftOut) -> str:
    return f" ({left_out})" if left_out.reasons else ""
