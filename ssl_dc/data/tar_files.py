"""Tar files whose members come in records, as WebDataset writes them: where the picture of each record lies, and its label.

Of a member only its header is read, 512 bytes, and the few bytes of a label. A file is never unpacked.
"""

from __future__ import annotations

import mmap
import re
import tarfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ssl_dc.data.pictures import PICTURE_ENDINGS
from ssl_dc.errors import DataError
from ssl_dc.printable import name_of

_BLOCK = 512
"""Members begin at multiples of so many bytes."""
_KIND = 156
"""Place of the kind of member in its header."""
_FILE_KINDS = frozenset(b"0\0")
"""Regular files."""
_PLAIN_KINDS = frozenset(b"0\x00123456")
"""Those, and links, devices, folders and FIFOs, which are left out."""
_LARGEST_LABEL = 32
"""Bytes of a member that holds a label, at most."""
_THREADS = 16
"""Files that are read at once: on a disk of a network each header takes a while to come."""
NO_LABEL = -(2**62)
"""Stands for the label of a record that has none."""


Member = tuple[bytes, int, int]
"""A regular file in a tar file: its path, and where its content begins and how long it is, in bytes."""


class Records(NamedTuple):
    """The records of one tar file that have a picture.

    Attributes:
        starts: Where the picture of each begins, (n,) int64, in bytes.
        sizes: Its bytes, (n,) int64.
        labels: Its label, (n,) int64; :data:`NO_LABEL` without one.
        without: How many other records there are.
    """

    starts: npt.NDArray[np.int64]
    sizes: npt.NDArray[np.int64]
    labels: npt.NDArray[np.int64]
    without: int


def records_of(paths: Sequence[Path], picture: str | None, label: str) -> list[Records]:
    """The records of tar files.

    Args:
        paths: The files.
        picture: Ending of the members that are the pictures, such as ``jpg``; None for any ending of a picture.
        label: Ending of the members that hold the labels, such as ``cls``.

    Raises:
        DataError: If a file is no tar file or is cut off, a record has several pictures, or a label is no number.
    """
    with ThreadPoolExecutor(_THREADS) as pool:
        return list(pool.map(lambda path: _records(path, picture, label), paths))


def _records(path: Path, picture: str | None, label: str) -> Records:
    pictures = {ending.encode() for ending in (PICTURE_ENDINGS if picture is None else {f".{picture}"})}
    label_ending = f".{label}".encode()
    starts, sizes, labels, without = list[int](), list[int](), list[int](), 0
    record, start, size, number = b"", -1, 0, NO_LABEL
    with path.open("rb") as file:
        for name, begins, length in chain(_members(path), [_LAST]):
            dot = name.find(b".", name.rfind(b"/") + 1)
            key, ending = (name[:dot], name[dot:].lower()) if dot >= 0 else (name, b"")
            if key != record:
                if start >= 0:
                    starts.append(start)
                    sizes.append(size)
                    labels.append(number)
                elif record:
                    without += 1
                record, start, number = key, -1, NO_LABEL
            if ending in pictures:
                if start >= 0:
                    raise DataError(
                        f"record {_shown(key)} of {path} has several pictures: name the ending of the one to train on by"
                        " data.picture, such as --data.picture jpg."
                    )
                start, size = begins, length
            elif ending == label_ending:
                file.seek(begins)
                number = _number(file.read(min(length, _LARGEST_LABEL)), name, path)
    return Records(np.array(starts, np.int64), np.array(sizes, np.int64), np.array(labels, np.int64), without)


_LAST: Member = (b"", 0, 0)
"""Ends the last record of a file. No member has an empty name."""


def _number(content: bytes, name: bytes, path: Path) -> int:
    if re.fullmatch(rb"\s*-?[0-9]{1,9}\s*", content) is None:
        raise DataError(
            f"member {_shown(name)} of {path} holds {content[:20]!r}; it should hold the number of a class. Name another"
            " member by data.label, such as --data.label txt; one that is not there means no labels."
        )
    return int(content)


def _shown(name: bytes) -> str:
    return name_of(name.decode(errors="replace"))


def _members(path: Path) -> Iterator[Member]:
    """The regular files in a tar file, in their order. Headers of an unusual kind are left to Python's own reader.

    Raises:
        DataError: If it is no tar file, or is cut off.
    """
    if path.stat().st_size < _BLOCK:
        raise DataError(f"{path} cannot be read as a tar file: it is too short.")
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        place, end = 0, len(content)
        while place + _BLOCK <= end and content[place]:
            header = content[place : place + _BLOCK]
            kind = header[_KIND]
            if header[257:262] != b"ustar" or kind not in _PLAIN_KINDS or header[345]:
                yield from _members_by_tarfile(path, place)
                return
            try:
                size = int(header[124:135], 8)
            except ValueError:
                yield from _members_by_tarfile(path, place)
                return
            name, begins = header[: header.find(0, 0, 100)] if 0 in header[:100] else header[:100], place + _BLOCK
            if begins + size > end:
                raise DataError(f"{path} is cut off: its member {_shown(name)} goes beyond its end.")
            if kind in _FILE_KINDS:
                yield name, begins, size
                place = begins + -(-size // _BLOCK) * _BLOCK
            else:
                place = begins
        if place == 0:
            raise DataError(f"{path} cannot be read as a tar file: it does not begin as one.")
        if place + _BLOCK > end:  # a whole file ends with blocks of zeros
            raise DataError(f"{path} is cut off: it has no end.")


def _members_by_tarfile(path: Path, place: int) -> Iterator[Member]:
    """The regular files from a place on, as Python reads them: long names, large sizes, sparse files, old formats."""
    try:
        with tarfile.open(path, "r:") as tar:
            for info in tar:
                if info.isreg() and not info.issparse() and info.offset >= place:
                    yield info.name.encode(errors="surrogateescape"), info.offset_data, info.size
    except (tarfile.TarError, OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as a tar file: {name_of(str(error))}.") from error
