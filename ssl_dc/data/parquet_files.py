"""Parquet files: which of a folder belong to which split, and columns read within a bound of memory."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from ssl_dc.data.base import LeftOut
from ssl_dc.data.listing import files_below
from ssl_dc.data.parquet_footer import Chunk, FooterError, column_chunks
from ssl_dc.errors import DataError
from ssl_dc.printable import name_of

TRAIN = "train"
HELD_OUT = ("test", "validation", "val", "valid", "dev")
"""Splits that hold images out, in the order in which they are looked at."""

LAYOUT = "parquet files, such as train.parquet and test.parquet, or train-00000-of-00002.parquet"
"""What a root should hold, for messages."""

_SHARD = re.compile(r"-(\d{5})-of-(\d{5})(-[0-9a-f]+)?$")
"""How the Hub's shards end: 00000-of-00002, older ones with a hash."""
_STEP = 64 * 2**20
"""Bytes that are read at once, about."""
_MOST_ROWS = 100_000
"""Rows that are read at once, at most."""
_MOST_EXPANSION = 100_000
"""How many times the size of a file its values may take. Zstandard, the tightest of the usual codecs, reaches 32,000."""


def holds_parquet(place: Path) -> bool:
    """Whether a place is a file, or a folder with parquet files anywhere below it."""
    return place.is_file() or any(name.endswith(".parquet") for _, name, _ in files_below(str(place), LeftOut()))


def find_splits(root: Path) -> dict[str, tuple[Path, ...]]:
    """The parquet files of a root by split: ``train`` and those of :data:`HELD_OUT` that are there.

    The name of a file begins with that of its split, or its folder is named so, as on the Hub: ``train.parquet``,
    ``data/train-00000-of-00002.parquet``, ``default/train/0000.parquet``. Where no name is that of a split, all files are
    of ``train``.

    Raises:
        DataError: If there are none, if they belong to several data sets, or if a shard is missing.
    """
    if root.is_file():
        return {TRAIN: (root.absolute(),)}
    by_base: dict[Path, dict[str, list[Path]]] = {}
    for path, name, _ in files_below(str(root), LeftOut()):
        if name.endswith(".parquet") and not name.startswith("."):
            base, split = _base_and_split(Path(path), root)
            by_base.setdefault(base, {}).setdefault(split, []).append(Path(path))
    found = _only_data_set(root, by_base)
    if TRAIN not in found:
        found = {TRAIN: sorted(path for paths in found.values() for path in paths)}
    return {split: _complete(sorted(paths), split) for split, paths in found.items() if split}


def _base_and_split(path: Path, root: Path) -> tuple[Path, str]:
    """The folder of the data set that a file belongs to, and its split; empty if no name says one."""
    if split := _split_of(path.stem):
        return path.parent, split
    if path.parent != root and (split := _split_of(path.parent.name)):
        return path.parent.parent, split
    return path.parent, ""


def _split_of(name: str) -> str:
    """The split that a name begins with, or ends with as ``partial-train`` does."""
    words = re.split(r"[-._ ]", name)
    return next((word for word in (words[0], words[-1]) if word in (TRAIN, *HELD_OUT)), "")


def split_in(name: str) -> str:
    """The split that a name holds as a word, such as ``imagenet-train-0001``; empty if it holds none."""
    return next((word for word in re.split(r"[-._ /\\]", name) if word in (TRAIN, *HELD_OUT)), "")


def _only_data_set(root: Path, by_base: dict[Path, dict[str, list[Path]]]) -> dict[str, list[Path]]:
    for base in (root, root / "data"):
        if TRAIN in by_base.get(base, {}):
            return by_base[base]
    candidates = {base: splits for base, splits in by_base.items() if TRAIN in splits} or by_base
    if len(candidates) == 1:
        return next(iter(candidates.values()))
    if not candidates:
        raise DataError(f"folder {root} holds no parquet files; it should hold {LAYOUT}.")
    names = ", ".join(name_of(str(base.relative_to(root))) for base in sorted(candidates)[:8])
    raise DataError(
        f"folder {root} holds parquet files of several data sets, in {names}: name one of these as --data-root."
    )


def _complete(paths: list[Path], split: str) -> tuple[Path, ...]:
    """The files of a split: the one that is named for it alone, or all its shards.

    Raises:
        DataError: If a shard is missing.
    """
    whole = [path for path in paths if path.stem == split]
    if whole:
        return (whole[0],)
    shards = [(int(match[1]), int(match[2])) for path in paths if (match := _SHARD.search(path.stem))]
    if shards and shards != [(number, shards[0][1]) for number in range(shards[0][1])]:
        total = shards[0][1]
        raise DataError(
            f"folder {paths[0].parent} should hold {total} shards of the split {split}, numbered 00000 to {total - 1:05d},"
            f" and has {', '.join(name_of(path.name) for path in paths[:8])}."
        )
    return tuple(paths)


class MemoryBound:
    """What may still be read into memory: half of what the machine has.

    Args:
        size: In bytes; by default half of the memory of the machine, or of its control group.
    """

    def __init__(self, size: int | None = None) -> None:
        self.size = self.left = memory_of_the_machine() // 2 if size is None else size

    def check(self, size: int, of_file: int, file: Path) -> None:
        """Check that values of a file may be read.

        Args:
            size: How many bytes they take in memory.
            of_file: How many bytes the file has.
            file: The file.

        Raises:
            DataError: If they may not.
        """
        if size > _MOST_EXPANSION * max(of_file, 1):
            raise DataError(
                f"{file} would take more than {_MOST_EXPANSION:,} times its size in memory; no pictures are packed so"
                " tightly, so it is not read."
            )
        if size > self.left:
            raise DataError(
                f"{file} does not fit into memory: parquet files are read whole, and half of the machine's memory"
                f" ({self.size / 2**30:.1f} GiB) is kept for them. Read them as they are needed: --data.stream true."
            )


def memory_of_the_machine() -> int:
    """Bytes of memory that this machine has, or that its control group (a container's, a job's) may use."""
    try:
        physical = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # Windows has no sysconf
        return 2**63
    try:
        return min(physical, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    except (OSError, ValueError):  # no control groups, or no limit ("max")
        return physical


class ParquetFile:
    """One parquet file, its columns looked up by name.

    Args:
        path: The file.

    Raises:
        DataError: If pyarrow is not installed, or it is not a parquet file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with self._opened() as file:
            self.schema = file.schema_arrow  # decodes the names, which may fail
            self._length = int(file.metadata.num_rows)
            self._size = path.stat().st_size
        if self._length < 0:
            raise DataError(f"{path} cannot be read as a parquet file: it says that it has {self._length:,} rows.")

    def __len__(self) -> int:
        return self._length

    @property
    def names(self) -> list[str]:
        """Names of the columns."""
        return list(self.schema.names)

    def shown_names(self) -> str:
        """Names of the columns, for messages."""
        return ", ".join(name_of(name) for name in self.names[:20])

    def type_of(self, column: str) -> Any:
        """The Arrow type of a column.

        Raises:
            DataError: If there are several of that name.
        """
        if self.names.count(column) != 1:
            raise DataError(f"{self.path} has {self.names.count(column)} columns named {column!r}; it should have one.")
        return self.schema.field(column).type

    def read(self, column: str, inside: str, bound: MemoryBound) -> list[Any]:
        """The values of a column, or of a field inside its structs, as Arrow arrays.

        Args:
            column: The column.
            inside: The field; empty for the column itself.
            bound: What may be read; what is read is taken off it.

        Raises:
            DataError: If it cannot be read, or takes too much memory.
        """
        arrays = []
        with self._opened() as file:
            groups = self._groups(file, column, inside)
            bound.check(sum(group.packed_size for group in groups), self._size, self.path)
            taken = 0
            for group in groups:
                for array in _values(file, group, column, inside):
                    taken += array.nbytes
                    bound.check(taken, self._size, self.path)
                    arrays.append(array)
            bound.left -= taken
        return arrays

    def groups(self, column: str, inside: str) -> list[RowGroup]:
        """The row groups, as far as a column, or a field inside its structs, is concerned.

        Raises:
            DataError: If the file's footer is damaged.
        """
        with self._opened() as file:
            return self._groups(file, column, inside)

    def _groups(self, file: Any, column: str, inside: str) -> list[RowGroup]:
        leaf = _leaf(column, inside)
        return [_row_group(file, number, chunks, leaf) for number, chunks in enumerate(column_chunks(self.path))]

    def read_group(self, group: RowGroup, column: str, inside: str, most: int) -> Any:
        """The values of one row group, as Arrow's chunked array of bytes.

        Args:
            group: The row group.
            column: The column.
            inside: The field of its structs; empty for the column itself.
            most: Bytes that the values may take.

        Raises:
            DataError: If it cannot be read, or its values take more.
        """
        import pyarrow

        arrays, taken = [], 0
        with self._opened() as file:
            for array in _values(file, group, column, inside):
                taken += array.nbytes
                if taken > most:
                    raise DataError(f"{self.path}: row group {group.number} takes more than {most // 2**20} MiB in memory.")
                arrays.append(array.cast(pyarrow.large_binary()))
        return pyarrow.chunked_array(arrays, pyarrow.large_binary())

    @contextmanager
    def _opened(self) -> Iterator[Any]:
        """Pyarrow's file, closed in the end. What is wrong with it is one message."""
        parquet = parquet_module()
        try:
            with parquet.ParquetFile(self.path) as file:
                yield file
        except DataError:
            raise
        except Exception as error:  # a damaged file may raise anything: ArrowException, OSError, UnicodeDecodeError, ...
            raise DataError(f"{self.path} cannot be read as a parquet file: {name_of(str(error))}.") from error


class RowGroup(NamedTuple):
    """A row group of a file, as far as one column is concerned.

    Attributes:
        number: Its number in the file.
        rows: How many rows it has.
        packed_size: Bytes of the column's values before they are packed, at least 1.
        rows_at_once: How many rows may be read at once, so that what is read is small beside the bound of memory.
    """

    number: int
    rows: int
    packed_size: int
    rows_at_once: int


def _row_group(file: Any, number: int, chunks: Sequence[Chunk], leaf: str) -> RowGroup:
    chunk = next((chunk for chunk in chunks if chunk.path == leaf), None)
    if chunk is None:
        raise FooterError(f"its footer is damaged: row group {number} has no column {leaf!r}")
    packed_size, rows = max(1, chunk.unpacked_size), int(file.metadata.row_group(number).num_rows)
    # A dictionary holds a value once that may stand in every row: each row may be as large as all that is packed.
    read = 1 if chunk.has_dictionary else rows
    return RowGroup(number, rows, packed_size, min(max(1, read * _STEP // packed_size), _MOST_ROWS))


def _leaf(column: str, inside: str) -> str:
    return f"{column}.{inside}" if inside else column


def _values(file: Any, group: RowGroup, column: str, inside: str) -> Iterator[Any]:
    """Arrow arrays of the values, each small beside the bound."""
    import pyarrow.compute

    leaf = _leaf(column, inside)
    # Threads would each take a column, and this is one: without them, processes may fork at any time.
    for batch in file.iter_batches(group.rows_at_once, row_groups=[group.number], columns=[leaf], use_threads=False):
        values = batch.column(0)
        yield pyarrow.compute.struct_field(values, inside) if inside else values


def parquet_module() -> Any:
    """``pyarrow.parquet``.

    Raises:
        DataError: If pyarrow is not installed.
    """
    try:
        import pyarrow.parquet
    except ImportError:
        raise DataError("data set 'parquet' needs pyarrow: pip install 'ssl-dc[parquet]'.") from None
    return pyarrow.parquet
