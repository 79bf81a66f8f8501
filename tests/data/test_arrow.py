"""Data sets that Hugging Face ``datasets`` saved: the same images, in the same order, as from parquet, from disk."""

from __future__ import annotations

import pickle
import sys
import tarfile
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.grey import grey_of, png
from ssl_dc.data.arrow import Arrow
from ssl_dc.data.base import Splits
from ssl_dc.data.options import ArrowOptions, ParquetOptions
from ssl_dc.data.parquet import Parquet
from ssl_dc.errors import DataError

datasets = pytest.importorskip("datasets", reason="Hugging Face datasets is not installed")


def rows(values: list[int], labels: list[int] | None = None, names: list[str] | None = None, image: str = "image") -> Any:
    columns: dict[str, Any] = {image: [{"bytes": png(value), "path": None} for value in values]}
    features = datasets.Features({image: datasets.Image()})
    if labels is not None:
        columns["label"] = labels
        features["label"] = datasets.ClassLabel(names=names) if names else datasets.Value("int32")
    return datasets.Dataset.from_dict(columns, features=features)


def saved(root: Path, **splits: Any) -> Path:
    whole = datasets.DatasetDict(splits) if len(splits) > 1 else next(iter(splits.values()))
    whole.save_to_disk(str(root))
    return root


def open_arrow(root: Path | None, **options: Any) -> Splits:
    return Arrow(ArrowOptions(root=root, **options)).open()


def error_of(root: Path | None, **options: Any) -> str:
    with pytest.raises(DataError) as caught:
        open_arrow(root, **options)
    return str(caught.value)


def test_splits_classes_labels_and_order(tmp_path: Path) -> None:
    names = ["cat", "dog"]
    splits = open_arrow(
        saved(
            tmp_path / "set",
            train=rows([9, 8, 7], [0, 1, 1], names),
            validation=rows([6], [1], names),
            test=rows([5], [-1], names),
        )
    )
    assert splits.classes == ("cat", "dog")
    assert grey_of(splits.train) == [9, 8, 7]
    assert splits.train.labels is not None
    assert (splits.train.labels.tolist(), splits.train.labels.dtype) == ([0, 1, 1], np.int64)
    assert grey_of(splits.test) == [6]  # the labels of the test split are hidden
    assert splits.evaluation_train is splits.train


def test_a_set_without_labels_holds_a_share_out(tmp_path: Path) -> None:
    splits = open_arrow(saved(tmp_path / "set", train=rows(list(range(40)), image="picture")))
    assert splits.train.labels is None
    assert splits.calibration is not None
    assert (len(splits.train), len(splits.calibration), len(splits.test)) == (32, 4, 4)
    assert splits.train.fingerprint() == open_arrow(tmp_path / "set").train.fingerprint()


def test_a_set_of_one_split_holds_a_share_of_each_class_out(tmp_path: Path) -> None:
    splits = open_arrow(saved(tmp_path / "set", all=rows(list(range(20)), [0, 1] * 10)))
    assert splits.classes == ("0", "1")
    assert splits.test.labels is not None
    assert np.bincount(splits.test.labels).tolist() == [2, 2]


def test_rows_chosen_and_shuffled_before_saving_are_those_read(tmp_path: Path) -> None:
    chosen = rows(list(range(30)), [0, 1] * 15).shuffle(seed=1).select(range(10))
    splits = open_arrow(saved(tmp_path / "set", train=chosen, test=rows([1], [0])))
    assert grey_of(splits.train) == [int(np.asarray(row["image"])[0, 0]) for row in chosen]
    assert splits.train.labels is not None
    assert splits.train.labels.tolist() == list(chosen["label"])


def test_a_pickled_set_is_small_and_reads_the_same_images(tmp_path: Path) -> None:
    train = open_arrow(saved(tmp_path / "set", train=rows(list(range(200)), [0, 1] * 100))).train
    pickled = pickle.dumps(train)
    assert len(pickled) < 20_000
    assert grey_of(pickle.loads(pickled)) == grey_of(train)


def test_what_is_no_such_set_is_one_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "--data-root" in error_of(None)
    assert "is not there" in error_of(tmp_path / "nowhere")
    assert "save_to_disk" in error_of(tmp_path)
    root = saved(tmp_path / "set", train=rows([1, 2], [0, 1]), test=rows([3], [0]))
    assert "has no column 'kind'; its columns are image, label" in error_of(root, label_column="kind")
    assert "has no column 'label' of encoded images" in error_of(root, image_column="label")
    assert "its splits are left, right" in error_of(saved(tmp_path / "two", left=rows([1]), right=rows([2])))
    arrow = next((root / "train").glob("*.arrow"))
    arrow.write_bytes(arrow.read_bytes()[:100])
    assert str(root) in error_of(root)
    monkeypatch.setitem(sys.modules, "datasets", None)
    assert "pip install 'ssl-dc[datasets]'" in error_of(root)


@pytest.mark.parametrize(("labels", "message"), [([0, 2**30], "label 1073741824"), ([0, -1], "label -1")])
def test_labels_that_are_no_classes_are_errors(labels: list[int], message: str, tmp_path: Path) -> None:
    assert message in error_of(saved(tmp_path / "set", train=rows([1, 2], labels), test=rows([3], [0])))


def test_an_image_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    features = datasets.Features({"image": datasets.Value("binary")})
    bad = datasets.Dataset.from_dict({"image": [b"nonsense", None, png(3)]}, features=features)
    train = open_arrow(saved(tmp_path / "set", train=bad)).train
    with pytest.raises(DataError, match=r"^image 0 of split train in .*set cannot be read"):
        train.image(0)
    with pytest.raises(DataError, match=r"image 1 of split train in .*set has no bytes"):
        train.image(1)
    assert train.image(2).getpixel((0, 0)) == (3, 3, 3)


def test_tar_files_of_webdataset_are_saved_as_the_docs_show(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for shard in range(2):
        with tarfile.open(tmp_path / f"{shard}.tar", "w") as tar:
            for number in range(3 * shard, 3 * shard + 3):
                for ending, content in (("png", png(number)), ("cls", str(number % 2).encode())):
                    member = tarfile.TarInfo(f"{number:05}.{ending}")
                    member.size = len(content)
                    tar.addfile(member, BytesIO(content))
    files = {"train": f"{tmp_path}/*.tar"}
    tars = datasets.load_dataset("webdataset", data_files=files, cache_dir=str(tmp_path / "cache"))
    tars.rename_columns({"png": "image", "cls": "label"}).save_to_disk(str(tmp_path / "set"))
    splits = open_arrow(tmp_path / "set", hold_out=0)
    assert grey_of(splits.train) == [0, 1, 2, 3, 4, 5]
    assert splits.train.labels is not None
    assert splits.train.labels.tolist() == [0, 1, 0, 1, 0, 1]


def test_real_cifar10_is_the_same_as_from_parquet(real_data: Path, tmp_path: Path) -> None:
    table = datasets.Dataset.from_parquet(str(real_data / "cifar10" / "test.parquet"), cache_dir=str(tmp_path / "cache"))
    table.save_to_disk(str(tmp_path / "set"))
    ours, theirs = (
        kind(options).open()
        for kind, options in (
            (Arrow, ArrowOptions(root=tmp_path / "set", hold_out=0)),
            (Parquet, ParquetOptions(root=real_data / "cifar10" / "test.parquet", hold_out=0)),
        )
    )
    assert ours.classes == theirs.classes
    assert ours.train.labels is not None
    assert ours.train.labels.tolist() == (theirs.train.labels if theirs.train.labels is not None else np.array([])).tolist()
    for index in np.linspace(0, 9_999, 200).astype(int):
        assert ours.train.image(index).tobytes() == theirs.train.image(index).tobytes()
