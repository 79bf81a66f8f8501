"""Which files below a folder are pictures, and why the others are left out."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from ssl_dc.data.base import LeftOut
from ssl_dc.data.pictures import CAMERA_ENDINGS, NOT_A_FILE, PICTURE_ENDINGS, PictureError, fault_of

_HIDDEN_FOLDERS = ("@eaDir", "$RECYCLE.BIN")
"""Folders that hold no pictures of the user's own: thumbnails of a network drive, what was deleted."""


NOWHERE = "links that lead nowhere"
_NOT_FILES = {
    NOWHERE: "it is a link to something that is not there",
    NOT_A_FILE: "it is a pipe, device or socket, which is never opened",
}
"""Why an entry of a folder that is neither a file nor a folder is left out, by its kind."""


class File(NamedTuple):
    """A regular file below a folder, or a link to one.

    Attributes:
        path: Its path, below the folder.
        name: Its name.
        is_link: Whether it is a link.
    """

    path: str
    name: str
    is_link: bool


def pictures_below(
    folder: str, left_out: LeftOut, *, trust_endings: bool = False, apart_from: Sequence[str] = ()
) -> list[str]:
    """The pictures in a folder and in the folders below it, each once.

    Links are followed, as :func:`files_below` says. A link to a picture that is listed by its own name is left out, and so
    is a second link to the same file. Hidden files and folders (a dot begins their names) are left out.

    Args:
        folder: The folder.
        left_out: Takes up each file that is no picture, with the reason.
        trust_endings: Take a file whose ending is that of a picture for one, without opening it.
        apart_from: Folders of other parts of the data set. A link that leads into one of them is left out.

    Returns:
        Their paths, sorted.
    """
    pictures, links = list[str](), list[str]()
    for path, name, is_link in files_below(folder, left_out, apart_from):
        hidden, ending = name.startswith("."), os.path.splitext(name)[1].lower()
        if ending in CAMERA_ENDINGS:
            left_out.add("raw camera files", path, "it is a raw camera file, which is not read; export it as JPEG")
        elif trust_endings and ending in PICTURE_ENDINGS and not hidden:
            (links if is_link else pictures).append(path)
        elif fault := fault_of(path):
            left_out.add(_kind(fault, ending, hidden), path, str(fault))
        elif hidden:
            left_out.add("hidden", path, "a dot begins its name")
        else:
            (links if is_link else pictures).append(path)
    return sorted([*pictures, *_new(links, pictures, left_out)])


def _new(links: Iterable[str], pictures: Iterable[str], left_out: LeftOut) -> Iterator[str]:
    """The links that lead to none of the pictures, and to what no earlier link leads to."""
    links = sorted(links)
    if not links:
        return
    real_folders = {place: os.path.realpath(place) for place in {os.path.dirname(path) for path in pictures}}
    listed = {os.path.join(real_folders[os.path.dirname(path)], os.path.basename(path)) for path in pictures}
    for link in links:
        target = os.path.realpath(link)
        if target in listed:
            left_out.add("pictures listed already", link, f"it leads to {target}, which is listed under another path")
        else:
            listed.add(target)
            yield link


def _kind(fault: PictureError, ending: str, hidden: bool) -> str:
    """How a file that cannot be read is counted: it is broken if its name says that it should be a picture."""
    meant = ending in PICTURE_ENDINGS and not hidden
    return "broken" if meant and fault.kind == "not pictures" else fault.kind


def files_below(folder: str, left_out: LeftOut, apart_from: Sequence[str] = ()) -> Iterator[File]:
    """Each regular file below a folder; those in folders that links lead to come last.

    Links are followed, also out of the folder: a data set may be put together from links. Each folder is listed once. A
    link to a folder that holds the folder itself is not followed, because everything beside it would be listed too.

    Args:
        folder: The folder.
        left_out: Takes up each folder and link that is not followed, with the reason.
        apart_from: Folders that no link is followed into, nor to what holds them.
    """
    apart = [os.path.realpath(place) for place in apart_from]
    own = [os.path.realpath(folder), *apart]
    listed: set[tuple[int, int]] = set()
    folders, links = [folder], list[str]()
    while folders or links:
        place = folders.pop() if folders else links.pop(0)
        try:
            identity = os.stat(place)
            if (identity.st_dev, identity.st_ino) in listed:
                left_out.add("folders listed already", place, "it leads to a folder that is listed under another path")
                continue
            listed.add((identity.st_dev, identity.st_ino))
            with os.scandir(place) as scan:
                entries = sorted(scan, key=lambda entry: entry.name)
        except OSError as error:
            left_out.add("folders that cannot be opened", place, error.strerror or str(error))
            continue
        for entry in entries:
            kind = _kind_of_entry(entry)
            target = os.path.realpath(entry.path) if entry.is_symlink() else None
            if target is not None and any(_holds(place, target) for place in apart):
                left_out.add("links into another split", entry.path, f"it leads to {target}, in another part of the data")
            elif kind == "file":
                yield File(entry.path, entry.name, target is not None)
            elif kind == "hidden folder":
                left_out.add("hidden folders", entry.path, "it is hidden")
            elif target is not None and kind == "folder" and any(_holds(target, place) for place in own if place != target):
                left_out.add("folders above the data", entry.path, f"it leads to {target}, which holds the data itself")
            elif kind == "folder":
                (links if entry.is_symlink() else folders).append(entry.path)
            else:
                left_out.add(kind, entry.path, _NOT_FILES[kind])


def _holds(folder: str, path: str) -> bool:
    """Whether a path is a folder or lies below it. Both are real paths."""
    return path == folder or path.startswith(os.path.join(folder, ""))


def _kind_of_entry(entry: os.DirEntry[str]) -> str:
    """What an entry of a folder is: ``file``, ``folder``, ``hidden folder``, or why it is neither."""
    try:
        if entry.is_dir():
            return "hidden folder" if entry.name.startswith(".") or entry.name in _HIDDEN_FOLDERS else "folder"
        if entry.is_file():
            return "file"
        return NOWHERE if entry.is_symlink() and not os.path.exists(entry.path) else NOT_A_FILE
    except OSError:  # a link that leads round in a circle
        return NOWHERE
