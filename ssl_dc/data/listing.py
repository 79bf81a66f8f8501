"""Which files below a folder are pictures, and why the others are left out."""

from __future__ import annotations

import os
from collections.abc import Iterator

from ssl_dc.data.base import LeftOut
from ssl_dc.data.pictures import CAMERA_ENDINGS, PICTURE_ENDINGS, PictureError, fault_of

_HIDDEN_FOLDERS = ("@eaDir", "$RECYCLE.BIN")
"""Folders that hold no pictures of the user's own: thumbnails of a network drive, what was deleted."""


def pictures_below(folder: str, left_out: LeftOut, *, trust_endings: bool = False) -> list[str]:
    """The pictures in a folder and in the folders below it.

    Links are followed. Each folder is listed once, so links that lead round in a circle do no harm. Hidden files and
    folders (a dot begins their names) are left out.

    Args:
        folder: The folder.
        left_out: Takes up each file that is no picture, with the reason.
        trust_endings: Take a file whose ending is that of a picture for one, without opening it.

    Returns:
        Their paths, sorted.
    """
    pictures = []
    for path, name in files_below(folder, left_out):
        hidden, ending = name.startswith("."), os.path.splitext(name)[1].lower()
        if ending in CAMERA_ENDINGS:
            left_out.add("raw camera files", path, "raw camera files are not read; export it as JPEG")
        elif trust_endings and ending in PICTURE_ENDINGS and not hidden:
            pictures.append(path)
        elif fault := fault_of(path):
            left_out.add(_kind(fault, ending, hidden), path, str(fault))
        elif hidden:
            left_out.add("hidden", path, "a dot begins its name")
        else:
            pictures.append(path)
    return sorted(pictures)


def _kind(fault: PictureError, ending: str, hidden: bool) -> str:
    """How a file that cannot be read is counted: it is broken if its name says that it should be a picture."""
    meant = ending in PICTURE_ENDINGS and not hidden
    return "broken" if meant and fault.kind == "not pictures" else fault.kind


def files_below(folder: str, left_out: LeftOut) -> Iterator[tuple[str, str]]:
    """The path and name of each regular file below a folder; folders that links lead to come last."""
    listed: set[tuple[int, int]] = set()
    folders, links = [folder], list[str]()
    while folders or links:
        place = folders.pop() if folders else links.pop(0)
        try:
            identity = os.stat(place)
            if (identity.st_dev, identity.st_ino) in listed:
                left_out.add("folders listed already", place, "a link leads to a folder that is listed under another path")
                continue
            listed.add((identity.st_dev, identity.st_ino))
            with os.scandir(place) as scan:
                entries = sorted(scan, key=lambda entry: entry.name)
        except OSError as error:
            left_out.add("folders that cannot be opened", place, error.strerror or str(error))
            continue
        for entry in entries:
            kind = _kind_of_entry(entry)
            if kind == "file":
                yield entry.path, entry.name
            elif kind == "hidden folder":
                left_out.add("hidden folders", entry.path, "it is hidden")
            elif kind == "folder":
                (links if entry.is_symlink() else folders).append(entry.path)
            else:
                left_out.add(kind, entry.path, "only regular files are opened")


def _kind_of_entry(entry: os.DirEntry[str]) -> str:
    """What an entry of a folder is: ``file``, ``folder``, ``hidden folder``, or why it is neither."""
    try:
        if entry.is_dir():
            return "hidden folder" if entry.name.startswith(".") or entry.name in _HIDDEN_FOLDERS else "folder"
        if entry.is_file():
            return "file"
        return "links that lead nowhere" if entry.is_symlink() and not os.path.exists(entry.path) else "not regular files"
    except OSError:  # a link that leads round in a circle
        return "links that lead nowhere"
