"""One's own images as files, in the usual layout of a folder a class; reading any image as RGB."""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image
from torchvision.datasets.folder import IMG_EXTENSIONS

from ssl_dc.data.base import DataSet, ImageSet, Labels, Splits
from ssl_dc.errors import DataError

_LAYOUT = "train/CLASS/*.jpg and val/CLASS/*.jpg (or test/CLASS/*.jpg)"
_FORMATS = ("JPEG", "PNG", "PPM", "BMP", "TIFF", "WEBP", "GIF")
_EXTENSIONS = ", ".join(IMG_EXTENSIONS)


def read_rgb(source: str | BinaryIO, name: str) -> Image.Image:
    """Read an image file of any mode as RGB; transparency is dropped, 16 bits a pixel become 8.

    Only of the formats that photographs come in: of others Pillow runs another program on the file (Ghostscript on EPS). An
    image of more pixels than :data:`PIL.Image.MAX_IMAGE_PIXELS` (89 million) is refused before it takes the memory.

    Args:
        source: Path or open file.
        name: What to call it in messages.

    Raises:
        DataError: If it cannot be read.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            opened = Image.open(source, formats=_FORMATS)
        with opened as image:
            if image.mode.startswith("I"):  # Pillow would cut everything above 255 off
                return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
            if "transparency" in image.info:  # Pillow warns if such a palette goes to RGB directly
                return image.convert("RGBA").convert("RGB")
            return image.convert("RGB")
    except Exception as error:  # a damaged file may raise anything: OSError, SyntaxError, struct.error, ...
        raise DataError(f"image {name} cannot be read: {error}.") from error


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


class NoLabelledImages(ImageSet):
    """Stands for labelled images that are not there: empty, and says why when its labels are asked for.

    It lets one pre-train on unlabelled images without having any to evaluate with.

    Args:
        reason: The message of the error.
    """

    def __init__(self, reason: str) -> None:
        self._reason = reason

    @property
    def labels(self) -> Labels | None:
        """Never there.

        Raises:
            DataError: Always.
        """
        raise DataError(self._reason)

    def __len__(self) -> int:
        return 0

    def image(self, index: int) -> Image.Image:  # noqa: ARG002  # there is none of any number
        """Never there.

        Raises:
            DataError: Always.
        """
        raise DataError(self._reason)


class Folder(DataSet):
    """The data set ``folder``: a root with ``train`` and ``val`` or ``test``, in each a folder a class.

    Where both are there, ``test`` is taken, unless it has no class folders (ImageNet's has none). A ``train``
    that holds images but no folders is unlabelled: it can be pre-trained on, not evaluated. Names that begin
    with a dot are left out; links are followed.
    """

    def open(self) -> Splits:
        """List the images.

        Raises:
            DataError: If the root is not given or not a folder, if a split or a class has no images, or if a
                class is only in the held-out split.
        """
        root = self._root()
        train = root / "train"
        classes, loose = _entries(train)
        if not classes:
            return _unlabelled(train, loose)
        test = _held_out(root)
        train_images = _labelled(train, classes)
        return Splits(train_images, train_images, _labelled(test, classes), classes)

    def _root(self) -> Path:
        root = self.options.root
        if root is None:
            raise DataError(f"data set 'folder' needs --data-root FOLDER, a folder that holds {_LAYOUT}.")
        if not root.is_dir():
            raise DataError(f"folder {root.absolute()} (--data-root) is not there; it should hold {_LAYOUT}.")
        if not (root / "train").is_dir():
            raise DataError(f"folder {root.absolute()} (--data-root) has no folder 'train'; it should hold {_LAYOUT}.")
        return root.absolute()


def _unlabelled(train: Path, images: Sequence[str]) -> Splits:
    if not images:
        raise DataError(f"folder {train} holds no class folders and no images; {_expected('train/CLASS/')}.")
    reason = (
        f"evaluation needs labels, and folder {train} holds images without class folders: "
        "sort the images into train/CLASS/ and val/CLASS/, or evaluate on another data set."
    )
    missing = NoLabelledImages(reason)
    return Splits(FolderImages(images, None), missing, missing, ())


def _held_out(root: Path) -> Path:
    """The folder of the held-out split: the first of ``test`` and ``val`` that has class folders."""
    for name in ("test", "val"):
        if (root / name).is_dir() and _entries(root / name)[0]:
            return root / name
    raise DataError(f"folder {root} has no held-out images in class folders; it should hold {_LAYOUT}.")


def _labelled(split: Path, classes: tuple[str, ...]) -> FolderImages:
    """The images of a split whose labels index ``classes``."""
    here, loose = _entries(split)
    if loose:
        raise DataError(
            f"folder {split} holds {len(loose)} image(s) beside its class folders, "
            f"such as {Path(loose[0]).name}; move each into the folder of its class, or away."
        )
    unknown = sorted(set(here) - set(classes))
    if unknown:
        raise DataError(
            f"folder {split} has classes that are not in 'train': {', '.join(unknown)}; 'train' has {', '.join(classes)}."
        )
    paths: list[str] = []
    labels: list[int] = []
    for name in here:
        images = _images_below(split / name)
        if not images:
            raise DataError(f"class folder {split / name} holds no images; {_expected('it')}.")
        paths += images
        labels += [classes.index(name)] * len(images)
    return FolderImages(paths, np.array(labels, dtype=np.int64))


def _entries(folder: Path) -> tuple[tuple[str, ...], list[str]]:
    """The names of the folders in a folder, and the paths of its images, both sorted."""
    with os.scandir(folder) as scan:
        entries = sorted((entry for entry in scan if not entry.name.startswith(".")), key=lambda entry: entry.name)
    folders = tuple(entry.name for entry in entries if entry.is_dir())
    return folders, [entry.path for entry in entries if entry.is_file() and _is_image(entry.name)]


def _images_below(folder: Path) -> list[str]:
    """The paths of all images in a folder and the folders in it, sorted."""
    return sorted(
        os.path.join(place, name)
        for place, _, names in os.walk(folder, followlinks=True)
        for name in names
        if _is_image(name)
    )


def _is_image(name: str) -> bool:
    return name.lower().endswith(IMG_EXTENSIONS) and not name.startswith(".")


def _expected(where: str) -> str:
    return f"{where} should hold image files ({_EXTENSIONS})"
