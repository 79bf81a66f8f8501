"""Tar files of WebDataset: the same pictures as Python's own reader finds, and faults in one message."""

from __future__ import annotations

import pickle
import tarfile
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.command_line import done
from helpers.grey import grey_of, png
from ssl_dc.data.base import Splits
from ssl_dc.data.options import WebDatasetOptions
from ssl_dc.data.tar_files import records_of
from ssl_dc.data.webdataset import WebDataset
from ssl_dc.embedding.which_data import _kind_of
from ssl_dc.errors import DataError


def tar_of(path: Path, members: Sequence[tuple[str, bytes]], layout: int = tarfile.USTAR_FORMAT) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=layout) as tar:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, BytesIO(content))
    return path


def shard(path: Path, numbers: Sequence[int], labelled: bool = True, **options: Any) -> Path:
    """A record for each number: a grey picture as bright as it, metadata, and its class, odd or even."""
    members = []
    for number in numbers:
        members += [(f"{number:05}.png", png(number)), (f"{number:05}.json", b"{}")]
        members += [(f"{number:05}.cls", f"{number % 2}\n".encode())] if labelled else []
    return tar_of(path, members, **options)


def opened(root: Path | None, **options: Any) -> Splits:
    return WebDataset(WebDatasetOptions(root=root, **options)).open()


def error_of(root: Path | None, **options: Any) -> str:
    with pytest.raises(DataError) as caught:
        opened(root, **options)
    return str(caught.value)


def test_pictures_labels_splits_and_blocks(tmp_path: Path) -> None:
    shard(tmp_path / "train-000001.tar", range(3, 5))
    shard(tmp_path / "train-000000.tar", range(3))
    shard(tmp_path / "imagenet-validation-0.tar", [9])
    splits = opened(tmp_path)
    assert grey_of(splits.train) == [0, 1, 2, 3, 4]
    assert splits.train.labels is not None
    assert (splits.train.labels.tolist(), splits.train.labels.dtype) == ([0, 1, 0, 1, 0], np.int64)
    assert (splits.classes, grey_of(splits.test)) == (("0", "1"), [9])
    blocks = splits.train.blocks()
    assert blocks is not None
    assert blocks.starts.tolist() == [0, 3]
    assert grey_of(pickle.loads(pickle.dumps(splits.train))) == [0, 1, 2, 3, 4]
    assert splits.train.name(3) == f"0 of {tmp_path / 'train-000001.tar'}"


def test_without_labels_a_share_is_held_out_and_the_rest_keeps_its_blocks(tmp_path: Path) -> None:
    for number in range(4):
        shard(tmp_path / "deep" / "er" / f"{number}.tar", range(10 * number, 10 * number + 10), labelled=False)
    splits = opened(tmp_path)
    assert splits.train.labels is None
    assert splits.calibration is not None
    assert (len(splits.train), len(splits.calibration), len(splits.test)) == (32, 4, 4)
    blocks = splits.train.blocks()
    assert blocks is not None
    assert [grey_of(splits.train)[start] // 10 for start in blocks.starts] == [0, 1, 2, 3]
    assert splits.train.fingerprint() == opened(tmp_path).train.fingerprint()
    shard(tmp_path / "deep" / "er" / "3.tar", range(30, 39), labelled=False)
    assert splits.train.fingerprint() != opened(tmp_path).train.fingerprint()


@pytest.mark.parametrize("layout", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("folder", ["", "a/", "b" * 90 + "/" + "c" * 60 + "/", "größe/"])
def test_members_lie_where_python_finds_them(tmp_path: Path, layout: int, folder: str) -> None:
    names = [f"{folder}{number}.jpg" for number in range(3)] + [f"{folder}x.PNG", f"{folder}y.txt"]
    path = tar_of(tmp_path / "a.tar", [(name, name.encode() * number) for number, name in enumerate(names)], layout)
    with tarfile.open(path) as tar:
        expected = [(info.offset_data, info.size) for info in tar if info.name != f"{folder}y.txt"]
    (found,) = records_of([path], None, "cls")
    assert list(zip(found.starts.tolist(), found.sizes.tolist(), strict=True)) == expected
    assert found.without == 1


def test_links_and_folders_between_members_are_passed_over(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for kind, name in ((tarfile.DIRTYPE, "d"), (tarfile.SYMTYPE, "d/0.png"), (tarfile.REGTYPE, "d/1.png")):
            member = tarfile.TarInfo(name)
            member.type, member.size = kind, 4 if kind == tarfile.REGTYPE else 0
            tar.addfile(member, BytesIO(b"abcd"))
    (found,) = records_of([tmp_path / "a.tar"], None, "cls")
    assert found.sizes.tolist() == [4]


def test_the_picture_of_a_record_of_several_is_named(tmp_path: Path) -> None:
    tar_of(tmp_path / "a.tar", [("1.left.png", png(1)), ("1.right.png", png(2)), ("1.txt", b"0")])
    assert grey_of(opened(tmp_path, picture="right.png").train) == [2]
    tar_of(tmp_path / "a.tar", [("1.png", png(1)), ("1.jpg", png(2))])
    assert "record 1 of" in error_of(tmp_path)
    assert "--data.picture jpg" in error_of(tmp_path)


def test_what_is_no_such_set_is_one_message(tmp_path: Path) -> None:
    assert "--data-root" in error_of(None)
    assert "is not there" in error_of(tmp_path / "nowhere")
    assert "holds no tar files" in error_of(tmp_path)
    path = shard(tmp_path / "a.tar", range(3))
    whole = path.read_bytes()
    for content, message in (
        (b"", "too short"),
        (b"\0" * 1024, "does not begin as one"),
        (b"nonsense " * 100, "cannot be read as a tar file"),
        (whole[:550], "cut off: its member 00000.png"),
        (whole[:1100], "cut off: it has no end"),
    ):
        path.write_bytes(content)
        assert message in error_of(tmp_path)
        assert str(path) in error_of(tmp_path)
    tar_of(path, [("1.txt", b"a")])
    assert "hold no pictures" in error_of(tmp_path)


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([("1.png", b""), ("1.cls", b"cat")], "member 1.cls of"),
        ([("1.png", b""), ("1.cls", b"1"), ("2.png", b"")], "a picture without a label"),
        ([("1.png", b""), ("1.cls", b"0"), ("2.png", b""), ("2.cls", b"-1")], "label -1"),
    ],
)
def test_labels_that_are_none_are_errors(tmp_path: Path, members: list[tuple[str, bytes]], message: str) -> None:
    tar_of(tmp_path / "a.tar", members)
    assert message in error_of(tmp_path)
    assert opened(tmp_path, label="none").train.labels is None


def test_a_picture_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    tar_of(tmp_path / "a.tar", [("1.png", b"nonsense"), ("2.png", png(3))])
    train = opened(tmp_path).train
    with pytest.raises(DataError, match=r"^image 0 of .*a\.tar cannot be read"):
        train.image(0)
    assert train.image(1).getpixel((0, 0)) == (3, 3, 3)
    (tmp_path / "a.tar").write_bytes(b"")
    with pytest.raises(DataError, match=r"^image 1 of .*a\.tar cannot be read"):
        train.image(1)


def test_a_place_with_tar_files_is_known_by_them(tmp_path: Path) -> None:
    path = shard(tmp_path / "tars" / "a.tar", range(2))
    assert (_kind_of(path), _kind_of(path.parent)) == ("webdataset", "webdataset")
    (path.parent / "a.jpg").write_bytes(b"")
    assert _kind_of(path.parent) == "folder"


@pytest.mark.long
def test_it_trains_from_the_command_line(tmp_path: Path) -> None:
    for number in range(3):
        shard(tmp_path / "set" / f"train-{number}.tar", range(20 * number, 20 * number + 20))
    sizes = ("--epochs", "1", "--batch-size", "8", "--width", "4", "--image-size", "8", "--workers", "1")
    said = done("train", "--data", "webdataset", "--data-root", tmp_path / "set", *sizes, "--output", tmp_path / "run")
    assert "kNN-1" in said
