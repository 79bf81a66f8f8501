"""The files that an embedding becomes: parquet, or NumPy's ``.npy`` with a table of the rows beside it."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ssl_dc.atomic_files import written_whole
from ssl_dc.embedding.job import Shard
from ssl_dc.embedding.rows import Rows
from ssl_dc.errors import ConfigError

COLUMNS = ("split", "name", "label", "class", "macs")
"""What both files say of each row, beside the features."""

Write = Callable[[Path, Iterator[Shard], Rows, int, Mapping[str, str]], None]
"""Writes shards as a file: its path, the shards, the rows, the width of the features, what else the file says."""


def writer_for(output: Path) -> Write:
    """What writes a file with this ending.

    Raises:
        ConfigError: If the ending names no format, or what writes it is not installed.
    """
    ending = output.suffix.lower()
    if ending not in WRITERS:
        raise ConfigError(f"--output {output}: its ending must be one of {', '.join(WRITERS)}")
    if ending == ".parquet":
        try:
            import pyarrow.parquet  # noqa: F401  # only tried
        except ImportError:
            raise ConfigError("parquet files need pyarrow: pip install 'ssl-dc[parquet]', or name a .npy file") from None
    return WRITERS[ending]


def files_of(output: Path) -> list[Path]:
    """The files that are written for an output."""
    return [output] if output.suffix.lower() == ".parquet" else [output.with_suffix(".csv"), output]


def write_parquet(path: Path, shards: Iterator[Shard], rows: Rows, width: int, said: Mapping[str, str]) -> None:
    """Write a parquet file, a row group for each shard; ``features`` is a list of ``width`` float32.

    Raises:
        RunError: If it cannot be written.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    fields = [pa.field("split", pa.string()), pa.field("name", pa.string()), pa.field("label", pa.int64())]
    fields += [pa.field("class", pa.string()), pa.field("macs", pa.float64())]
    fields.append(pa.field("features", pa.list_(pa.float32(), width)))
    schema = pa.schema(fields, metadata={f"ssl_dc.{key}": value for key, value in said.items()})
    with written_whole(path) as partial, pq.ParquetWriter(partial, schema) as writer:
        for shard in shards:
            columns: list[Any] = [pa.array(values, field.type) for values, field in zip(_columns(shard, rows), fields)]  # noqa: B905
            values = pa.array(np.ascontiguousarray(shard.features.features).reshape(-1), pa.float32())
            columns.append(pa.FixedSizeListArray.from_arrays(values, width))
            writer.write_table(pa.Table.from_arrays(columns, schema=schema))


def write_npy(path: Path, shards: Iterator[Shard], rows: Rows, width: int, said: Mapping[str, str]) -> None:  # noqa: ARG001
    """Write the features (n, width) float32 as ``.npy``, and what each row is as ``.csv`` beside it.

    Raises:
        RunError: If they cannot be written.
    """
    count = 0
    table = path.with_suffix(".csv")
    with written_whole(path) as partial:
        with (
            written_whole(table) as listed,
            listed.open("w", encoding="utf-8", newline="") as text,
            partial.open("wb") as file,
        ):
            lines = csv.writer(text)
            lines.writerow(COLUMNS)
            file.write(_npy_header(0, width))
            for shard in shards:
                lines.writerows(zip(*_columns(shard, rows), strict=True))
                file.write(np.ascontiguousarray(shard.features.features, dtype="<f4").tobytes())
                count += len(shard.rows)
        with partial.open("r+b") as file:
            file.write(_npy_header(count, width))


def _npy_header(count: int, width: int) -> bytes:
    """The first bytes of a ``.npy`` file, as many whatever the count is: it is known only at the end."""
    shape = f"({count}, {width}), ".ljust(60)
    text = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}}}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode()


def _columns(shard: Shard, rows: Rows) -> list[list[Any]]:
    """The columns of :data:`COLUMNS`."""
    found = [rows[number] for number in shard.rows.tolist()]
    return [
        [row.split for row in found],
        [row.name for row in found],
        [row.label for row in found],
        [rows.class_of(row) for row in found],
        shard.features.macs.tolist(),
    ]


WRITERS: dict[str, Write] = {".parquet": write_parquet, ".npy": write_npy}
"""What writes each format, by the ending of the file."""
