"""The footer of a parquet file: what is read of it is what pyarrow says, and damage is told in a sentence."""

from __future__ import annotations

import faulthandler
import os
from contextlib import suppress
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ssl_dc.data.parquet_files import MemoryBound, ParquetFile
from ssl_dc.data.parquet_footer import Chunk, FooterError, column_chunks
from ssl_dc.errors import DataError

TABLE = pa.table(
    {
        "image": pa.array([{"bytes": b"x" * size, "path": str(size)} for size in range(40)]),
        "label": pa.array([0, 1] * 20, pa.int32()),
        "many": pa.array([[1.5, None], []] * 20),
        "truth": pa.array([True, None] * 20),
    },
    metadata={"key": "value"},
)


def as_pyarrow_says(path: Path) -> list[list[Chunk]]:
    metadata = pq.ParquetFile(path).metadata
    return [
        [
            Chunk(column.path_in_schema, column.total_uncompressed_size, column.has_dictionary_page)
            for column in map(group.column, range(group.num_columns))
        ]
        for group in map(metadata.row_group, range(metadata.num_row_groups))
    ]


@pytest.mark.parametrize("dictionary", [True, False, ["label"]])
@pytest.mark.parametrize("rows", [7, 1000])
@pytest.mark.parametrize("compression", ["none", "zstd"])
def test_it_is_what_pyarrow_says(tmp_path: Path, dictionary: bool | list[str], rows: int, compression: str) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(
        TABLE, path, use_dictionary=dictionary, row_group_size=rows, compression=compression, write_page_index=True
    )
    chunks = column_chunks(path)
    assert chunks == as_pyarrow_says(path)
    assert len(chunks) == -(-40 // rows)
    assert [chunk.path for chunk in chunks[0]] == ["image.bytes", "image.path", "label", "many.list.element", "truth"]


def test_real_files_have_what_pyarrow_says(real_data: Path) -> None:
    files = list(real_data.glob("*/**/*.parquet"))
    assert files
    for path in files:
        assert column_chunks(path) == as_pyarrow_says(path)


@pytest.mark.long
@given(damage=st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=4))
@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_damaged_footer_is_read_or_told(damage: list[tuple[int, int]], tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    if not path.exists():
        pq.write_table(TABLE, path)
    content = bytearray(path.read_bytes())
    length = int.from_bytes(content[-8:-4], "little")
    for position, byte in damage:
        content[-9 - position % length] = byte
    (tmp_path / "b.parquet").write_bytes(content)
    chunks: list[list[Chunk]] = []
    with suppress(FooterError):
        chunks = column_chunks(tmp_path / "b.parquet")
    assert all(chunk.unpacked_size >= 0 for group in chunks for chunk in group)


def length_field(path: Path, value: bytes) -> bytearray:
    """The bytes of a file with one zig-zag number of its footer replaced; the number stands once in the footer."""
    content = bytearray(path.read_bytes())
    start = len(content) - 8 - int.from_bytes(content[-8:-4], "little")
    where = content.index(b"\x16\x50", start)  # field of 64 bits, 40 rows
    content[where + 1 : where + 2] = value
    return content


def test_a_negative_number_of_rows_is_told(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"label": [0] * 40}), path)
    path.write_bytes(length_field(path, b"\x4f"))  # -40
    with pytest.raises(DataError, match="says that it has -40 rows"):
        ParquetFile(path)


def damage_until_it_ends_the_process(path: Path) -> bool:
    """Damage a file in a process of its own until pyarrow's description of its column throws where nobody catches."""
    content = path.read_bytes()
    start = len(content) - 8 - int.from_bytes(content[-8:-4], "little")
    child = os.fork()
    if child == 0:
        faulthandler.disable()
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        try:
            for position in range(start, len(content) - 8):
                path.write_bytes(content[:position] + b"\x29" + content[position + 1 :])
                with suppress(Exception):
                    pq.ParquetFile(path).metadata.row_group(0).column(0)
        finally:
            os._exit(0)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def test_a_footer_that_contradicts_itself_does_not_end_the_process(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"label": [0, 1] * 4}), path)
    if not damage_until_it_ends_the_process(path):
        pytest.skip("this release of pyarrow catches it")
    with pytest.raises(DataError, match="cannot be read as a parquet file"):
        ParquetFile(path).read("label", "", MemoryBound())
