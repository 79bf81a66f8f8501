from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ssl_dc.data.base import ImageSet, Splits
from ssl_dc.data.digits import ArrayImages
from ssl_dc.data.folder import Folder
from ssl_dc.data.held_out import described, unlabelled_splits
from ssl_dc.data.options import FolderOptions
from ssl_dc.data.pictures import read_rgb
from ssl_dc.data.subsets import Subset, open_splits
from ssl_dc.errors import DataError


def save(path: Path, mode: str = "RGB", colour: int | tuple[int, ...] = 200) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(colour, int) and len(Image.new(mode, (1, 1)).getbands()) > 1:
        colour = (colour,) * len(Image.new(mode, (1, 1)).getbands())
    Image.new(mode, (6, 4), colour).save(path)
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for split in ("train", "val"):
        for name in ("cat", "dog"):
            for number in range(2):
                save(tmp_path / split / name / f"{number}.png")
    return tmp_path


def open_folder(root: Path | None) -> Splits:
    return Folder(FolderOptions(root=root)).open()


def error_of(root: Path | None) -> str:
    with pytest.raises(DataError) as caught:
        open_folder(root)
    return str(caught.value)


def test_classes_are_the_folders_in_order_of_name(root: Path) -> None:
    splits = open_folder(root)
    assert splits.classes == ("cat", "dog")
    assert splits.evaluation_train is splits.train
    for images in (splits.train, splits.test):
        assert images.labels is not None
        assert images.labels.tolist() == [0, 0, 1, 1]
        assert images.labels.dtype == np.int64


def test_test_folder_goes_before_val_if_it_has_classes(root: Path) -> None:
    save(root / "test" / "unsorted.png")
    assert len(open_folder(root).test) == 4
    save(root / "test" / "dog" / "0.png")
    (root / "test" / "unsorted.png").unlink()
    test = open_folder(root).test
    assert test.labels is not None
    assert test.labels.tolist() == [1]


def test_extensions_in_capitals_links_and_deeper_folders_count_and_hidden_files_do_not(root: Path) -> None:
    save(root / "train" / "cat" / "more" / "3.png").rename(root / "train" / "cat" / "more" / "3.PNG")
    (root / "train" / "cat" / "link.png").symlink_to(save(root.parent / "of another set.png"))
    (root / "train" / "cat" / "._0.png").write_bytes(b"a Mac's")
    (root / "train" / "cat" / "notes.txt").write_text("no image")
    (root / "train" / ".cache").mkdir()
    elsewhere = (root / "val" / "dog").rename(root / "elsewhere")
    (root / "val" / "dog").symlink_to(elsewhere, target_is_directory=True)
    splits = open_folder(root)
    assert splits.train.labels is not None
    assert np.bincount(splits.train.labels).tolist() == [4, 2]
    assert len(splits.test) == 4


def test_damaged_file_is_an_error_that_names_it(root: Path) -> None:
    broken = root / "train" / "cat" / "0.png"
    broken.write_bytes(broken.read_bytes()[:40])
    with pytest.raises(DataError) as caught:
        open_folder(root).train.image(0)
    assert str(broken) in str(caught.value)


def test_root_must_be_given() -> None:
    assert "--data-root" in error_of(None)


def test_root_must_be_there(tmp_path: Path) -> None:
    message = error_of(tmp_path / "nowhere")
    assert str(tmp_path / "nowhere") in message
    assert "train/CLASS" in message


@pytest.mark.parametrize("made", ["", "train"])
def test_a_folder_without_pictures_is_an_error_that_says_what_was_there(made: str, tmp_path: Path) -> None:
    (tmp_path / made).mkdir(exist_ok=True)
    (tmp_path / made / "notes.txt").write_text("no picture")
    message = error_of(tmp_path)
    assert f"folder {tmp_path / made} holds no pictures (1 file left out: 1 not a picture)" in message
    assert "train/CLASS" in message


def test_without_a_held_out_folder_a_share_of_each_class_is_held_out(tmp_path: Path) -> None:
    for number in range(20):
        save(tmp_path / "train" / "cat" / f"{number}.png")
    for number in range(3):
        save(tmp_path / "train" / "dog" / f"{number}.png")
    save(tmp_path / "train" / "fox" / "only.png")
    splits = open_folder(tmp_path)
    assert splits.classes == ("cat", "dog", "fox")
    assert splits.train.labels is not None
    assert splits.test.labels is not None
    assert np.bincount(splits.train.labels).tolist() == [16, 2, 1]
    assert np.bincount(splits.test.labels).tolist() == [4, 1]
    assert splits.evaluation_train is splits.train
    assert open_folder(tmp_path).test.fingerprint() == splits.test.fingerprint()
    nothing = Folder(FolderOptions(root=tmp_path, hold_out=0)).open()
    assert (len(nothing.train), len(nothing.test)) == (24, 0)


def test_class_folder_without_images_is_no_class(root: Path) -> None:
    (root / "train" / "empty").mkdir()
    assert open_folder(root).classes == ("cat", "dog")


def test_class_that_is_only_held_out_is_an_error(root: Path) -> None:
    save(root / "val" / "fox" / "0.png")
    message = error_of(root)
    assert "not in 'train': fox" in message
    assert "cat, dog" in message


def test_images_beside_class_folders_are_left_out_where_classes_are_held_out(root: Path) -> None:
    save(root / "train" / "stray.png")
    splits = open_folder(root)
    assert len(splits.train) == 4
    assert splits.found is not None
    assert str(splits.found.left_out) == "1 file left out: 1 beside the classes"


def test_images_beside_folders_and_no_held_out_folder_are_a_set_without_labels(tmp_path: Path) -> None:
    for path in ("2021/a.png", "2022/b.png", "c.png"):
        save(tmp_path / "train" / path)
    assert open_folder(tmp_path).train.labels is None


LAYOUTS = {
    "in the root": "{}.jpg",
    "nested": "holiday/day {}/photo.jpg",
    "a folder a class, but no train": "cat{}/photo.jpg",
    "in train": "train/{}.jpg",
    "in train, of one class": "train/all/{}.jpg",
}


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS.keys())
def test_any_layout_without_classes_is_a_set_without_labels(layout: str, tmp_path: Path) -> None:
    for number in range(40):
        save(tmp_path / layout.format(number))
    splits = open_folder(tmp_path)
    assert splits.train.labels is None
    assert splits.classes == ()
    assert splits.calibration is not None
    assert (len(splits.train), len(splits.calibration), len(splits.test)) == (32, 4, 4)
    assert splits.test.labels is None
    assert splits.found is not None
    assert "40 pictures, no labels; 8 of them are held out" in splits.found.summary
    with pytest.raises(DataError, match="evaluation needs labels"):
        _ = splits.evaluation_train.labels
    parts = [colours_of(part) for part in (splits.train, splits.calibration, splits.test)]
    assert sum(map(len, parts)) == 40


def colours_of(images: ImageSet) -> list[bytes]:
    return [images.image(number).tobytes() for number in range(len(images))]


def test_a_held_out_folder_without_classes_is_measured_on_and_not_trained_on(tmp_path: Path) -> None:
    for number in range(30):
        save(tmp_path / "train" / f"{number}.png", colour=10)
    for number in range(8):
        save(tmp_path / "val" / f"{number}.png", colour=90)
    splits = open_folder(tmp_path)
    assert splits.calibration is not None
    assert (len(splits.train), len(splits.calibration), len(splits.test)) == (30, 4, 4)
    assert splits.test.image(0).getpixel((0, 0)) == (90, 90, 90)


def test_few_images_are_all_trained_on(tmp_path: Path) -> None:
    for number in range(4):
        save(tmp_path / "train" / f"{number}.jpg")
    splits = open_splits(Folder(FolderOptions(root=tmp_path, limit=3, test_limit=2)))
    assert splits.train.labels is None
    assert len(splits.train) == 3
    assert splits.train.image(2).mode == "RGB"
    for images in (splits.evaluation_train, splits.test):
        assert len(images) == 0
        with pytest.raises(DataError, match="evaluation needs labels"):
            _ = images.labels
        with pytest.raises(DataError, match="evaluation needs labels"):
            images.image(0)


def test_hidden_folders_and_circles_of_links_do_not_multiply_images(root: Path) -> None:
    cat = root / "train" / "cat"
    save(cat / ".ipynb_checkpoints" / "0-checkpoint.png")
    (cat / "itself").symlink_to(cat, target_is_directory=True)
    (cat / "round").symlink_to("round")
    (cat / "nowhere.png").symlink_to(root / "gone.png")
    splits = open_folder(root)
    assert len(splits.train) == 4
    assert splits.found is not None
    assert {kind: len(paths) for kind, paths in splits.found.left_out.reasons.items()} == {
        "hidden folders": 1,
        "folders listed already": 1,
        "links that lead nowhere": 2,
    }


def test_one_of_a_kind_is_counted_as_one(root: Path) -> None:
    cat = root / "train" / "cat"
    (cat / "again.png").symlink_to(cat / "0.png")
    (cat / "nowhere.png").symlink_to(root / "gone.png")
    os.mkfifo(cat / "pipe.png")
    (cat / ".hidden").mkdir()
    splits = open_folder(root)
    assert splits.found is not None
    left_out = splits.found.left_out
    assert str(left_out) == (
        "3 files left out: 1 pipe, device or socket, 1 picture listed already, 1 link that leads nowhere;"
        " 1 folder left out: 1 hidden folder"
    )
    reasons = {os.path.basename(path): reason for paths in left_out.reasons.values() for path, reason in paths.items()}
    assert reasons["nowhere.png"] == "it is a link to something that is not there"
    assert reasons["pipe.png"] == "it is a pipe, device or socket, which is never opened"
    (cat / "nowhere too.png").symlink_to(root / "gone.png")
    found = open_folder(root).found
    assert found is not None
    assert str(found.left_out).startswith("4 files left out: 2 links that lead nowhere, 1 pipe, device or socket, 1 pic")


def left_out_of(splits: Splits) -> dict[str, set[str]]:
    """The names of what is left out, by the kind of reason."""
    assert splits.found is not None
    reasons = splits.found.left_out.reasons
    return {kind: {os.path.basename(path) for path in paths} for kind, paths in reasons.items()}


def test_a_link_to_a_picture_that_is_listed_is_not_a_second_picture(tmp_path: Path) -> None:
    one, folder = save(tmp_path / "set" / "more" / "1.png"), tmp_path / "set"
    save(folder / ".store" / "3.png")
    outside = save(tmp_path / "outside.png")
    (folder / "a link.png").symlink_to(one)  # sorted before what it leads to
    (folder / "more" / "link.png").symlink_to("1.png")
    (folder / "out.png").symlink_to(outside)
    (folder / "out again.png").symlink_to(outside)
    (folder / "hidden.png").symlink_to(folder / ".store" / "3.png")  # as git-annex and DVC keep pictures
    (tmp_path / "by a link").symlink_to(folder)
    for root in (folder, tmp_path / "by a link"):
        splits = open_folder(root)
        names = [os.path.relpath(splits.train.name(number), root) for number in range(len(splits.train))]
        assert names == ["hidden.png", "more/1.png", "out again.png"]
        assert left_out_of(splits)["pictures listed already"] == {"a link.png", "link.png", "out.png"}


@pytest.mark.parametrize("above", ["..", "../..", "/"])
def test_a_link_to_a_folder_above_is_not_followed(tmp_path: Path, above: str) -> None:
    save(tmp_path / "not of the set.png")
    save(tmp_path / "set" / "in" / "1.png")
    (tmp_path / "set" / "in" / "up").symlink_to(above)
    splits = open_folder(tmp_path / "set")
    assert len(splits.train) == 1
    kind = "folders listed already" if above == ".." else "folders above the data"
    assert left_out_of(splits) == {kind: {"up"}}


def test_a_link_out_of_the_folder_is_followed(tmp_path: Path) -> None:
    save(tmp_path / "store" / "2021" / "1.png")
    save(tmp_path / "store" / "2.png")
    save(tmp_path / "set" / "3.png")
    (tmp_path / "store" / "round").symlink_to(tmp_path / "set")
    (tmp_path / "set" / "stored").symlink_to(tmp_path / "store")
    splits = open_folder(tmp_path / "set")
    assert len(splits.train) == 3
    assert left_out_of(splits) == {"folders listed already": {"round"}}


def test_no_link_brings_held_out_pictures_into_training_or_the_reverse(root: Path) -> None:
    before = open_folder(root)
    (root / "train" / "cat" / "of val.png").symlink_to(root / "val" / "cat" / "0.png")
    (root / "train" / "cat" / "all of val").symlink_to(root / "val")
    (root / "train" / "cat" / "root").symlink_to(root)
    (root / "val" / "cat" / "of train.png").symlink_to(root / "train" / "cat" / "0.png")
    splits = open_folder(root)
    assert (len(splits.train), len(splits.test)) == (len(before.train), len(before.test))
    assert left_out_of(splits) == {
        "links into another split": {"of val.png", "all of val", "of train.png"},
        "folders above the data": {"root"},
    }
    for picture in (root / "train").glob("*/*.png"):
        picture.rename(root / "train" / picture.name)  # now without labels
    assert left_out_of(open_folder(root))["links into another split"] >= {"of val.png", "of train.png"}


@pytest.mark.parametrize("labelled", [True, False])
def test_pipes_and_devices_are_never_opened(labelled: bool, root: Path) -> None:
    train = root / "train" / "cat" if labelled else root
    if not labelled:
        shutil.rmtree(root / "train")
    os.mkfifo(train / "pipe.png")
    (train / "device.png").symlink_to("/dev/zero")
    splits = open_folder(root)
    assert len(splits.train) == 4
    assert splits.found is not None
    assert set(splits.found.left_out.reasons["pipes, devices or sockets"]) == {
        str(train / "pipe.png"),
        str(train / "device.png"),
    }


def test_a_pipe_in_place_of_a_picture_is_an_error_and_not_waited_for(root: Path) -> None:
    train = open_folder(root).train
    path = root / "train" / "cat" / "0.png"
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(DataError, match=r"cat/0\.png cannot be read: it is a pipe, device or socket"):
        train.image(0)


def test_what_is_no_picture_is_counted_with_its_reason(tmp_path: Path) -> None:
    save(tmp_path / "a.png")
    (tmp_path / "b.jpg").write_bytes(b"")
    (tmp_path / "c.txt").write_bytes(b"words")
    (tmp_path / "d.png").write_bytes((tmp_path / "a.png").read_bytes()[:-30])
    (tmp_path / "e.NEF").write_bytes((tmp_path / "a.png").read_bytes())
    (tmp_path / ".f.png").write_bytes((tmp_path / "a.png").read_bytes())
    save(tmp_path / "none.png").rename(tmp_path / "none")
    save(tmp_path / "wrong.png").rename(tmp_path / "wrong.txt")
    splits = open_folder(tmp_path)
    assert len(splits.train) == 3
    assert splits.found is not None
    assert str(splits.found.left_out).startswith("5 files left out: 2 broken, 1 ")
    assert {kind: [Path(path).name for path in paths] for kind, paths in splits.found.left_out.reasons.items()} == {
        "broken": ["b.jpg", "d.png"],
        "not pictures": ["c.txt"],
        "raw camera files": ["e.NEF"],
        "hidden": [".f.png"],
    }
    with pytest.raises(DataError, match=r"b\.jpg cannot be read: it is empty"):
        Folder(FolderOptions(root=tmp_path, bad_images="stop")).open()


def test_a_file_as_root_is_said_to_be_none(tmp_path: Path) -> None:
    assert "is not a folder" in error_of(save(tmp_path / "a.png"))


def test_imagenette_has_900_images_all_rgb_even_the_grey_ones(real_data: Path) -> None:
    splits = open_folder(real_data / "imagenette_small")
    assert (len(splits.train), len(splits.test), len(splits.classes)) == (600, 300, 10)
    paths = sorted((real_data / "imagenette_small").rglob("*.JPEG"))
    grey = [str(path) for path in paths if Image.open(path).mode == "L"]
    assert grey, "the folder should hold some greyscale images"
    for path in grey:
        image = read_rgb(path, path)
        assert (image.mode, image.size) == ("RGB", (224, 224))


def test_held_out_pictures_beyond_those_that_are_needed_are_drawn_and_embedded() -> None:
    images, held_out = (ArrayImages(np.zeros((n, 1, 1, 3), np.uint8), None) for n in (30, 2500))
    splits = unlabelled_splits(images, held_out, 0.2, "a folder")
    assert splits.calibration is not None
    assert splits.others is not None
    parts = [splits.calibration, splits.test, splits.others]
    numbers = [part._indices for part in parts if isinstance(part, Subset)]
    assert [len(part) for part in numbers] == [1024, 1024, 452]
    assert sorted(np.concatenate(numbers)) == list(range(2500))
    assert 1000 < np.median(numbers[0]) < 1500, "drawn from all, not the first by their paths"
    assert described(splits).startswith("2,530 pictures, no labels; 2,048 of them are held out")
    one = unlabelled_splits(images, ArrayImages(np.zeros((1, 1, 1, 3), np.uint8), None), 0.2, "a folder")
    assert one.others is not None
    assert len(one.others) == 1
    few = unlabelled_splits(images, ArrayImages(np.zeros((9, 1, 1, 3), np.uint8), None), 0.2, "a folder")
    assert few.others is None
