from __future__ import annotations

import json
import pickle
import sys
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ssl_dc.data.base import Splits
from ssl_dc.data.options import ParquetOptions
from ssl_dc.data.parquet import Parquet
from ssl_dc.errors import DataError

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")


def png(value: int) -> bytes:
    buffer = BytesIO()
    Image.new("L", (5, 5), value).save(buffer, "png")
    return buffer.getvalue()


def write(
    path: Path,
    values: list[int],
    *,
    labels: list[Any] | None = None,
    names: list[str] | None = None,
    plain: bool = False,
) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    images = [png(value) if plain else {"bytes": png(value), "path": None} for value in values]
    image_type = pa.binary() if plain else pa.struct({"bytes": pa.binary(), "path": pa.string()})
    table = pa.table({"image": pa.array(images, image_type), "label": labels or [0] * len(values)})
    if names:
        features = {"image": {"_type": "Image"}, "label": {"names": names, "_type": "ClassLabel"}}
        metadata = {"huggingface": json.dumps({"info": {"features": features}})}
        table = table.replace_schema_metadata(metadata)
    pq.write_table(table, path)


def open_parquet(root: Path | None, **options: Any) -> Splits:
    return Parquet(ParquetOptions(root=root, **options)).open()


def error_of(root: Path | None, **options: Any) -> str:
    with pytest.raises(DataError) as caught:
        open_parquet(root, **options)
    return str(caught.value)


def grey_of(splits: Splits) -> list[int]:
    return [int(np.asarray(splits.train.image(index))[0, 0, 0]) for index in range(len(splits.train))]


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize("test_name", ["test", "validation", "val"])
def test_structs_and_bytes_are_read_and_classes_without_names_are_numbers(
    plain: bool, test_name: str, tmp_path: Path
) -> None:
    write(tmp_path / "train.parquet", [10, 20], labels=[0, 2], plain=plain)
    write(tmp_path / f"{test_name}.parquet", [30], labels=[1], plain=plain)
    splits = open_parquet(tmp_path)
    assert grey_of(splits) == [10, 20]
    assert splits.train.image(0).mode == "RGB"
    assert splits.classes == ("0", "1", "2")
    assert splits.evaluation_train is splits.train
    assert splits.train.labels is not None
    assert splits.train.labels.dtype == np.int64


def test_class_names_come_from_hugging_faces_metadata(tmp_path: Path) -> None:
    write(tmp_path / "train.parquet", [1, 2], names=["cat", "dog"])
    write(tmp_path / "test.parquet", [3], labels=[1])
    assert open_parquet(tmp_path).classes == ("cat", "dog")


@pytest.mark.parametrize("below", ["", "data"])
def test_shards_are_read_in_order(below: str, tmp_path: Path) -> None:
    folder = tmp_path / below
    write(folder / "train-00001-of-00002.parquet", [3, 4], labels=[1, 0])
    write(folder / "train-00000-of-00002.parquet", [1, 2], labels=[0, 1])
    write(folder / "validation-00000-of-00001.parquet", [5])
    splits = open_parquet(tmp_path)
    assert grey_of(splits) == [1, 2, 3, 4]
    assert splits.train.labels is not None
    assert splits.train.labels.tolist() == [0, 1, 1, 0]


def test_pickled_set_is_small_and_reads_the_same_images(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    write(tmp_path / "train.parquet", rng.integers(0, 256, 300).tolist())
    write(tmp_path / "test.parquet", [1])
    train = open_parquet(tmp_path).train
    pickled = pickle.dumps(train)
    assert len(pickled) < 5000
    copy = pickle.loads(pickled)
    assert copy.image(123).tobytes() == train.image(123).tobytes()


def test_root_must_be_given_and_be_there(tmp_path: Path) -> None:
    assert "--data-root" in error_of(None)
    assert str(tmp_path / "nowhere") in error_of(tmp_path / "nowhere")


def test_split_that_is_not_there_is_an_error_that_says_what_is_expected(tmp_path: Path) -> None:
    assert "train.parquet" in error_of(tmp_path)
    write(tmp_path / "train.parquet", [1])
    assert "test or validation or val" in error_of(tmp_path)


def test_missing_shard_is_an_error(tmp_path: Path) -> None:
    write(tmp_path / "train-00000-of-00002.parquet", [1])
    assert "2 shards" in error_of(tmp_path)


def test_file_that_is_not_parquet_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "train.parquet").write_bytes(b"no parquet at all")
    assert str(tmp_path / "train.parquet") in error_of(tmp_path)


def test_wrong_columns_are_errors_that_name_the_options(tmp_path: Path) -> None:
    write(tmp_path / "train.parquet", [1])
    write(tmp_path / "test.parquet", [1])
    message = error_of(tmp_path, label_column="fine_label")
    assert "'fine_label'" in message
    assert "image, label" in message
    assert "data.label_column" in message
    assert "structs {bytes, path}" in error_of(tmp_path, image_column="label")


@pytest.mark.parametrize(
    ("train", "test", "message"),
    [
        ([0, -1], [0], "label -1"),
        ([0, 1], [2], "label 2"),
        ([0, None], [0], "1 values missing"),
        (["a", "b"], ["a"], "string"),
    ],
)
def test_labels_that_are_no_classes_are_errors(train: list[Any], test: list[Any], message: str, tmp_path: Path) -> None:
    write(tmp_path / "train.parquet", [1, 2], labels=train)
    write(tmp_path / "test.parquet", [3], labels=test)
    assert message in error_of(tmp_path)


def test_image_that_cannot_be_decoded_is_an_error_that_names_it(tmp_path: Path) -> None:
    images = pa.array([{"bytes": b"nonsense", "path": None}, {"bytes": None, "path": "elsewhere.png"}])
    pq.write_table(pa.table({"image": images, "label": [0, 0]}), tmp_path / "train.parquet")
    write(tmp_path / "test.parquet", [1])
    train = open_parquet(tmp_path).train
    with pytest.raises(DataError, match=r"image 0 of .*train\.parquet cannot be read"):
        train.image(0)
    with pytest.raises(DataError, match=r"image 1 of .*train\.parquet has no bytes"):
        train.image(1)


def test_without_pyarrow_the_error_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "train.parquet", [1])
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert "pip install 'ssl-dc[parquet]'" in error_of(tmp_path)


def test_real_cifar10_has_its_images_and_class_names(real_data: Path) -> None:
    splits = open_parquet(real_data / "cifar10")
    assert (len(splits.train), len(splits.test)) == (50_000, 10_000)
    assert splits.classes[:3] == ("airplane", "automobile", "bird")
    assert len(splits.classes) == 10
    image = splits.train.image(49_999)
    assert (image.mode, image.size) == ("RGB", (32, 32))
    assert splits.test.labels is not None
    assert np.bincount(splits.test.labels).tolist() == [1000] * 10
    assert len(pickle.dumps(splits.train)) < 1_000_000
