"""Parquet files read as they are needed give what they give read whole, and no more memory than some row groups."""

from __future__ import annotations

import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.command_line import done
from helpers.grey import grey_of, png
from helpers.settings import as_options
from helpers.training import assert_same_files
from ssl_dc.data.base import Splits
from ssl_dc.data.options import ParquetOptions
from ssl_dc.data.parquet import Parquet
from ssl_dc.data.streamed_parquet import StreamedParquetImages
from ssl_dc.errors import DataError

pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
pq = pytest.importorskip("pyarrow.parquet")


def shards(root: Path, count: int = 3, rows: int = 20, group: int = 6, labels: bool = True) -> Path:
    """Shards whose pictures are as bright as their number."""
    root.mkdir(exist_ok=True)
    for number in range(count):
        values = range(number * rows, number * rows + rows)
        columns: dict[str, Any] = {"image": [{"bytes": png(value), "path": None} for value in values]}
        columns |= {"label": [value % 2 for value in values]} if labels else {}
        pq.write_table(pa.table(columns), root / f"train-{number:05}-of-{count:05}.parquet", row_group_size=group)
    return root


def opened(root: Path, stream: bool = True, **options: Any) -> Splits:
    return Parquet(ParquetOptions(root=root, stream=stream, **options)).open()


@pytest.mark.parametrize("labels", [True, False])
def test_it_is_the_set_that_is_read_whole(tmp_path: Path, labels: bool) -> None:
    root = shards(tmp_path / "set", labels=labels)
    ours, whole = opened(root), opened(root, stream=False)
    assert ours.classes == whole.classes
    for one, other in zip(ours[:3], whole[:3], strict=True):
        if len(other):
            assert grey_of(one) == grey_of(other)
            assert (one.labels is None) == (other.labels is None)
            assert one.labels is None or np.array_equal(one.labels, other.labels)


def test_each_row_group_is_a_block_and_few_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = opened(shards(tmp_path / "set"), hold_out=0).train
    assert isinstance(images, StreamedParquetImages)
    assert images.blocks().starts.tolist() == [0, 6, 12, 18, 20, 26, 32, 38, 40, 46, 52, 58]
    monkeypatch.setattr("ssl_dc.data.streamed_parquet.KEPT_BYTES", 1)
    images = opened(tmp_path / "set", hold_out=0).train
    assert isinstance(images, StreamedParquetImages)
    assert images.blocks().together == 2
    read = []
    for file in images._files:
        monkeypatch.setattr(file, "read_group", lambda *a, f=file: (read.append(a[0]), type(f).read_group(f, *a))[1])
    assert grey_of(images) == list(range(60))
    assert len(read) == 12, "in order, each row group is read once"
    assert len(images._kept) == 2
    assert grey_of(pickle.loads(pickle.dumps(opened(tmp_path / "set", hold_out=0).train))) == list(range(60))


def test_threads_share_it(tmp_path: Path) -> None:
    images = opened(shards(tmp_path / "set"), hold_out=0).train
    order = np.random.default_rng(0).permutation(60).tolist()
    with ThreadPoolExecutor(8) as pool:
        assert [image.getpixel((0, 0))[0] for image in pool.map(images.image, order)] == order  # type: ignore[index]


def test_the_fingerprint_is_that_of_the_content(tmp_path: Path) -> None:
    before = opened(shards(tmp_path / "set")).train.fingerprint()
    assert opened(shards(tmp_path / "set")).train.fingerprint() == before
    assert opened(shards(tmp_path / "set", rows=21)).train.fingerprint() != before


def test_a_row_group_that_is_too_large_is_refused_with_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ssl_dc.data.streamed_parquet.LARGEST_GROUP", 100)
    with pytest.raises(DataError, match=r"has a row group of .*row_group_size=1000"):
        opened(shards(tmp_path / "set"))


def test_a_picture_without_bytes_is_named(tmp_path: Path) -> None:
    root = shards(tmp_path / "set", labels=False)
    table = pa.table({"image": [{"bytes": None, "path": "a.png"}, {"bytes": png(1), "path": None}]})
    pq.write_table(table, root / "train-00000-of-00003.parquet")
    with pytest.raises(DataError, match=r"image 0 of the split, in .*00000-of-00003\.parquet, has no bytes"):
        opened(root, hold_out=0).train.image(0)


def test_a_set_that_does_not_fit_is_told_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = shards(tmp_path / "set")
    monkeypatch.setattr("ssl_dc.data.parquet_files.memory_of_the_machine", lambda: 6_000)
    with pytest.raises(DataError, match=r"does not fit into memory: .* --data\.stream true"):
        opened(root, stream=False, hold_out=0)
    assert len(opened(root, hold_out=0).train) == 60


@pytest.mark.long
def test_workers_do_not_change_a_training(tmp_path: Path) -> None:
    root = shards(tmp_path / "set", labels=False)
    sizes = {"training.epochs": 2, "training.batch_size": 8, "backbone.width": 4, "data.image_size": 8, "data.stream": True}
    for workers in (0, 2):
        words = as_options({**sizes, "training.workers": workers, "training.log_every": 1})
        done("train", "--data", "parquet", "--data-root", root, *words, "--output", tmp_path / f"run{workers}")
    assert_same_files(tmp_path / "run0", tmp_path / "run2", "metrics.jsonl", "model.safetensors")
