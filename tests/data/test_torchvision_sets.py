from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from torchvision import datasets

from ssl_dc.data.base import DataSet
from ssl_dc.data.options import Cifar10Options, Cifar100Options, Stl10Options
from ssl_dc.data.torchvision_sets import Cifar10, Cifar100, Stl10
from ssl_dc.errors import DataError
from ssl_dc.plugins.options import DataOptions

SETS = [
    (Cifar10, Cifar10Options, "cifar-10-batches-py"),
    (Cifar100, Cifar100Options, "cifar-100-python"),
    (Stl10, Stl10Options, "stl10_binary"),
]


@pytest.mark.parametrize(("data_set", "options", "files"), SETS)
def test_missing_files_are_an_error_that_says_where_it_looked_and_what_to_pass(
    data_set: type[DataSet], options: type[DataOptions], files: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=r"--download.*--data-root") as caught:
        data_set(options(root=tmp_path)).open()
    assert str(tmp_path / files) in str(caught.value)


def test_default_root_is_the_folder_data_in_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError) as caught:
        Cifar10(Cifar10Options()).open()
    assert str(tmp_path / "data" / "cifar-10-batches-py") in str(caught.value)


def test_failed_download_is_an_error_with_its_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_network(**_: Any) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(datasets, "CIFAR10", no_network)
    with pytest.raises(DataError, match=r"could not be downloaded to .*no route to host"):
        Cifar10(Cifar10Options(root=tmp_path, download=True)).open()


def test_cifar_splits_and_labels_are_torchvisions(monkeypatch: pytest.MonkeyPatch) -> None:
    def fake(train: bool, **_: Any) -> Any:
        value = 7 if train else 9
        pixels = np.full((3, 32, 32, 3), value, np.uint8)
        return SimpleNamespace(data=pixels, targets=[2, 0, 1], classes=["a", "b", "c"])

    monkeypatch.setattr(datasets, "CIFAR10", fake)
    splits = Cifar10(Cifar10Options()).open()
    assert splits.evaluation_train is splits.train
    assert splits.train.image(0).getpixel((0, 0)) == (7, 7, 7)
    assert splits.test.image(0).getpixel((0, 0)) == (9, 9, 9)
    assert splits.test.labels is not None
    assert splits.test.labels.tolist() == [2, 0, 1]
    assert splits.classes == ("a", "b", "c")


def test_stl10_pretrains_on_unlabelled_and_evaluates_on_labelled(monkeypatch: pytest.MonkeyPatch) -> None:
    def fake(split: str, **_: Any) -> Any:
        value = ("unlabeled", "train", "test").index(split)
        pixels = np.zeros((2, 3, 96, 96), np.uint8)
        pixels[:, value] = 100
        return SimpleNamespace(data=pixels, labels=np.array([0, 1], np.uint8), classes=["bird", "car"])

    monkeypatch.setattr(datasets, "STL10", fake)
    splits = Stl10(Stl10Options()).open()
    assert splits.train.labels is None
    assert splits.train.image(0).getpixel((5, 5)) == (100, 0, 0)
    assert splits.evaluation_train.image(0).getpixel((5, 5)) == (0, 100, 0)
    assert splits.test.image(1).getpixel((5, 5)) == (0, 0, 100)
    assert splits.test.labels is not None
    assert splits.test.labels.dtype == np.int64
