"""What the footer of a parquet file says of its columns, read without pyarrow.

Pyarrow ends the whole process when a damaged footer contradicts itself: its description of a column chunk throws a C++
exception that nobody catches. Its readers do catch it. So the sizes that are needed before anything is read are taken from
the footer itself: a Thrift structure in the compact protocol (``parquet.thrift`` of the format's specification).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_DEEPEST = 20
"""Structures inside structures. The format needs 7."""


class FooterError(ValueError):
    """The bytes are no footer of a parquet file."""


@dataclass(frozen=True)
class Chunk:
    """The values of one column in one row group.

    Attributes:
        path: Name of the column; of a field inside structs, the names joined by dots.
        unpacked_size: Bytes of its pages when they are unpacked.
        has_dictionary: Whether values that occur often are stored once.
    """

    path: str
    unpacked_size: int
    has_dictionary: bool


def column_chunks(path: Path) -> list[list[Chunk]]:
    """The chunks of all columns in each row group of a file.

    Raises:
        FooterError: If the footer is damaged.
        OSError: If the file cannot be read.
    """
    with path.open("rb") as file:
        file.seek(-8, 2)
        length = int.from_bytes(file.read(4), "little")
        file.seek(-8 - length, 2)
        footer = file.read(length)
    try:
        fields = _Reader(footer).structure(_DEEPEST)
        return [[_chunk(chunk[3]) for chunk in group[1]] for group in fields[4]]
    except (IndexError, KeyError, TypeError, AttributeError, UnicodeDecodeError) as error:
        raise FooterError(f"its footer is damaged ({type(error).__name__})") from error


def _chunk(fields: Mapping[int, Any]) -> Chunk:
    path = ".".join(name.decode() for name in fields[3])
    size = fields[6]
    if not isinstance(size, int) or size < 0:
        raise FooterError("its footer is damaged: a column has no size")
    return Chunk(path, size, 11 in fields)


class _Reader:
    """Reads Thrift's compact protocol.

    Args:
        content: The bytes.
    """

    def __init__(self, content: bytes) -> None:
        self._content = content
        self._at = 0
        numbers: dict[int, Callable[[int], Any]] = dict.fromkeys((4, 5, 6), lambda _: self._signed())
        self._readers: dict[int, Callable[[int], Any]] = {
            **numbers,
            1: lambda _: True,
            2: lambda _: False,
            3: lambda _: self._byte(),
            7: lambda _: self._bytes(8),
            8: lambda _: self._bytes(self._unsigned()),
            9: self._elements,
            10: self._elements,
            12: self.structure,
        }

    def structure(self, depth: int) -> dict[int, Any]:
        """A structure: its values by field number."""
        fields: dict[int, Any] = {}
        number = 0
        while head := self._byte():
            number = number + (head >> 4) if head >> 4 else self._signed()
            fields[number] = self._value(head & 15, depth - 1)
        return fields

    def _elements(self, depth: int) -> list[Any]:
        head = self._byte()
        count = head >> 4 if head >> 4 < 15 else self._unsigned()
        if count > len(self._content) - self._at:
            raise FooterError("its footer is damaged: a list is longer than the footer")
        kind = head & 15
        if kind in (1, 2):  # in a list, each truth value has a byte of its own
            return [self._byte() == 1 for _ in range(count)]
        return [self._value(kind, depth - 1) for _ in range(count)]

    def _value(self, kind: int, depth: int) -> Any:
        if depth < 0 or kind not in self._readers:
            raise FooterError("its footer is damaged: it is no Thrift structure of this format")
        return self._readers[kind](depth)

    def _signed(self) -> int:
        number = self._unsigned()
        return (number >> 1) ^ -(number & 1)

    def _unsigned(self) -> int:
        number = shift = 0
        while True:
            byte = self._byte()
            number |= (byte & 127) << shift
            if byte < 128:
                return number
            shift += 7
            if shift > 63:
                raise FooterError("its footer is damaged: a number is too long")

    def _byte(self) -> int:
        byte = self._content[self._at]
        self._at += 1
        return byte

    def _bytes(self, count: int) -> bytes:
        self._at += count
        if self._at > len(self._content):
            raise FooterError("its footer is damaged: a text is longer than the footer")
        return self._content[self._at - count : self._at]
