from __future__ import annotations

import json
import pickle
import sys
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from ssl_dc.data import parquet_files
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


def test_a_root_without_parquet_files_is_an_error_that_says_what_is_expected(tmp_path: Path) -> None:
    assert "train.parquet" in error_of(tmp_path)


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
        ([0, 20_000_000], [0], "label 20000000"),
        ([0, 2**62], [0], "label 4611686018427387904"),
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


LAYOUTS = {
    "the Hub's": (
        "data/train-00000-of-00002.parquet",
        "data/train-00001-of-00002.parquet",
        "data/test-00000-of-00001.parquet",
    ),
    "the Hub's of before": (
        "data/train-00000-of-00002-a09b74b3ef9c3b56.parquet",
        "data/train-00001-of-00002-cc0a1ad9b15a3f5e.parquet",
        "data/valid-00000-of-00001-1259abe3e9d0b0a2.parquet",
    ),
    "a configuration's": (
        "plain_text/train-00000-of-00002.parquet",
        "plain_text/train-00001-of-00002.parquet",
        "plain_text/test-00000-of-00001.parquet",
    ),
    "converted by the Hub": ("default/train/0000.parquet", "default/train/0001.parquet", "default/validation/0000.parquet"),
    "in part": (
        "default/partial-train/0000.parquet",
        "default/partial-train/0001.parquet",
        "default/partial-test/0.parquet",
    ),
    "numbered by hand": ("train_0.parquet", "train_1.parquet", "dev.parquet"),
}


@pytest.mark.parametrize("paths", LAYOUTS.values(), ids=LAYOUTS.keys())
def test_splits_are_found_by_the_names_that_they_have_on_the_hub(paths: tuple[str, str, str], tmp_path: Path) -> None:
    for number, path in enumerate(paths):
        write(tmp_path / path, [2 * number, 2 * number + 1], labels=[0, 1])
    splits = open_parquet(tmp_path)
    assert grey_of(splits) == [0, 1, 2, 3]
    assert np.asarray(splits.test.image(0))[0, 0, 0] == 4


def test_several_data_sets_below_a_root_are_an_error_that_names_them(tmp_path: Path) -> None:
    for name in ("full_numbers", "cropped_digits"):
        write(tmp_path / name / "train-00000-of-00001.parquet", [1])
    assert "in cropped_digits, full_numbers: name one of these as --data-root" in error_of(tmp_path)
    assert len(open_parquet(tmp_path / "full_numbers").train) == 1


def test_a_single_file_may_be_the_root(tmp_path: Path) -> None:
    write(tmp_path / "holiday.parquet", list(range(10)), labels=[0, 1] * 5)
    for root in (tmp_path / "holiday.parquet", tmp_path):
        splits = open_parquet(root)
        assert (len(splits.train), len(splits.test)) == (8, 2)


def test_without_a_column_of_labels_a_share_is_held_out(tmp_path: Path) -> None:
    pq.write_table(
        pa.table({"image": [png(value) for value in range(40)], "caption": ["a"] * 40}), tmp_path / "train.parquet"
    )
    splits = open_parquet(tmp_path)
    assert splits.train.labels is None
    assert splits.calibration is not None
    assert (len(splits.train), len(splits.calibration), len(splits.test)) == (32, 4, 4)
    shown = [int(np.asarray(part.image(i))[0, 0, 0]) for part in splits[:3:2] for i in range(len(part))]
    assert len(set(shown)) == 36
    assert splits.found is not None
    assert "40 pictures, no labels; 8 of them are held out" in splits.found.summary
    assert splits.train.fingerprint() == open_parquet(tmp_path).train.fingerprint()
    assert "has no column 'kind'; its columns are image, caption" in error_of(tmp_path, label_column="kind")


def test_without_labels_a_held_out_split_is_measured_on(tmp_path: Path) -> None:
    for name, values in (("train", range(30)), ("test", range(100, 104))):
        pq.write_table(pa.table({"image": [png(value) for value in values]}), tmp_path / f"{name}.parquet")
    splits = open_parquet(tmp_path)
    assert splits.calibration is not None
    assert (len(splits.train), len(splits.calibration), len(splits.test)) == (30, 2, 2)


def test_without_a_held_out_split_a_share_of_each_class_is_held_out(tmp_path: Path) -> None:
    write(tmp_path / "train.parquet", list(range(40)), labels=[0, 1] * 20)
    splits = open_parquet(tmp_path)
    assert splits.test.labels is not None
    assert np.bincount(splits.test.labels).tolist() == [4, 4]
    assert len(splits.train) == 32


def test_a_split_of_hidden_labels_is_passed_over(tmp_path: Path) -> None:
    write(tmp_path / "train.parquet", [1, 2], labels=[0, 1])
    write(tmp_path / "test.parquet", [3, 4, 5], labels=[-1, -1, -1])
    write(tmp_path / "validation.parquet", [6], labels=[1])
    assert len(open_parquet(tmp_path).test) == 1
    (tmp_path / "validation.parquet").unlink()
    write(tmp_path / "train.parquet", list(range(20)), labels=[0, 1] * 10)
    assert len(open_parquet(tmp_path).test) == 4


def test_the_only_column_of_images_is_found_by_its_type(tmp_path: Path) -> None:
    images = pa.array([{"bytes": png(7), "path": None}] * 2, pa.struct({"bytes": pa.binary(), "path": pa.string()}))
    pq.write_table(pa.table({"img": images, "label": [0, 1]}), tmp_path / "train.parquet")
    assert open_parquet(tmp_path).train.image(0).getpixel((0, 0)) == (7, 7, 7)
    assert "no column 'picture'" in error_of(tmp_path, image_column="picture")
    pq.write_table(pa.table({"img": images, "mask": images}), tmp_path / "train.parquet")
    assert "its columns are img, mask" in error_of(tmp_path)


def shards(tmp_path: Path, second: Any) -> Path:
    write(tmp_path / "train-00000-of-00002.parquet", [1, 2, 3], labels=[0, 1, 1])
    pq.write_table(second, tmp_path / "train-00001-of-00002.parquet")
    write(tmp_path / "test.parquet", [9])
    return tmp_path


def test_shards_may_differ_in_what_is_not_used(tmp_path: Path) -> None:
    images = [{"bytes": png(4), "path": None}]
    null_path = pa.array(images, pa.struct({"bytes": pa.binary(), "path": pa.null()}))
    wide = pa.array(images, pa.struct({"bytes": pa.large_binary(), "path": pa.string(), "size": pa.int64()}))
    for column in (null_path, wide, pa.array([png(4)], pa.binary())):
        for kind in (pa.int64(), pa.int32(), pa.uint8()):
            table = pa.table({"label": pa.array([1], kind), "note": ["x"], "image": column})
            splits = open_parquet(shards(tmp_path, table))
            assert grey_of(splits) == [1, 2, 3, 4]
            assert splits.train.labels is not None
            assert splits.train.labels.tolist() == [0, 1, 1, 1]


def test_a_shard_without_rows_says_nothing_of_types(tmp_path: Path) -> None:
    splits = open_parquet(shards(tmp_path, pa.table({"image": pa.array([], pa.null()), "label": pa.array([], pa.null())})))
    assert grey_of(splits) == [1, 2, 3]


def test_an_image_is_named_by_its_own_shard_and_row(tmp_path: Path) -> None:
    table = pa.table({"image": [png(4), b"no picture"], "label": [0, 0]})
    train = open_parquet(shards(tmp_path, table)).train
    with pytest.raises(DataError, match=r"^image 1 of .*/train-00001-of-00002\.parquet cannot be read: [^<]*$"):
        train.image(4)


def test_columns_of_one_name_or_of_none_are_one_message(tmp_path: Path) -> None:
    twice = pa.Table.from_arrays([pa.array([png(1)]), pa.array([png(1)]), pa.array([0])], ["image", "image", "label"])
    pq.write_table(twice, tmp_path / "train.parquet")
    assert "has 2 columns named 'image'; it should have one" in error_of(tmp_path)
    write(tmp_path / "train.parquet", [1])
    path = tmp_path / "train.parquet"
    path.write_bytes(path.read_bytes().replace(b"label", b"\xff\xfe\xfdel"))
    assert str(path) in error_of(tmp_path)


def repeated(size: int, rows: int, path: Path, structs: bool) -> None:
    """A small file of large values: one value that stands in every row, kept once in the file."""
    values = pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, np.int32)), pa.array([bytes(size)]))
    column = pa.StructArray.from_arrays([values, pa.array(["x"] * rows)], ["bytes", "path"]) if structs else values
    pq.write_table(pa.table({"image": column, "label": [0] * rows}), path, compression="zstd", store_schema=False)


@pytest.mark.parametrize("structs", [True, False])
def test_what_would_expand_without_bound_is_refused_before_it_does(structs: bool, tmp_path: Path) -> None:
    path = tmp_path / "train.parquet"
    repeated(2**20, 10_000, path, structs)
    assert path.stat().st_size < 1500
    before = pa.total_allocated_bytes()
    with pytest.raises(DataError, match="times its size in memory") as caught:
        open_parquet(tmp_path)
    assert caught.tb is not None  # it keeps what was read until then
    assert pa.total_allocated_bytes() - before < 400 * 2**20


def test_what_does_not_fit_into_memory_is_told_by_the_sizes_that_the_file_states(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet_files, "memory_of_the_machine", lambda: 2 * 20_000)
    rng = np.random.default_rng(0)
    pq.write_table(pa.table({"image": [rng.bytes(1000) for _ in range(4)]}), tmp_path / "train.parquet")
    assert len(open_parquet(tmp_path).train) == 4
    pq.write_table(pa.table({"image": [rng.bytes(1000) for _ in range(40)]}), tmp_path / "train.parquet")
    monkeypatch.setattr(parquet_files, "_values", lambda *_: pytest.fail("it was read"))
    assert "does not fit into memory" in error_of(tmp_path)


def test_the_memory_of_the_machine_is_a_sensible_number() -> None:
    assert 2**28 < parquet_files.memory_of_the_machine() <= 2**63


def test_a_row_group_is_read_in_parts_and_is_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "train.parquet", list(range(50)), labels=[0, 1] * 25)
    whole = open_parquet(tmp_path)
    monkeypatch.setattr(parquet_files, "_STEP", 300)
    parts = open_parquet(tmp_path)
    assert grey_of(parts) == grey_of(whole)
    assert parts.train.fingerprint() == whole.train.fingerprint()


@pytest.mark.long
@given(data=st.data())
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_damaged_files_are_read_or_one_message(data: st.DataObject, tmp_path: Path) -> None:
    path = tmp_path / "train.parquet"
    write(path, list(range(8)), labels=[0, 1] * 4)
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.integers(len(content) - 20, len(content)))])
    with suppress(DataError):
        splits = open_parquet(tmp_path)
        for index in range(len(splits.train)):
            splits.train.image(index)


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
