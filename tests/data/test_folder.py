from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ssl_dc.data.base import Splits
from ssl_dc.data.folder import Folder, read_rgb
from ssl_dc.data.options import FolderOptions
from ssl_dc.data.subsets import open_splits
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
    (root / "train" / "cat" / "link.png").symlink_to(root / "val" / "cat" / "0.png")
    (root / "train" / "cat" / "._0.png").write_bytes(b"a Mac's")
    (root / "train" / "cat" / "notes.txt").write_text("no image")
    (root / "train" / ".cache").mkdir()
    elsewhere = (root / "val" / "dog").rename(root / "elsewhere")
    (root / "val" / "dog").symlink_to(elsewhere, target_is_directory=True)
    splits = open_folder(root)
    assert splits.train.labels is not None
    assert np.bincount(splits.train.labels).tolist() == [4, 2]
    assert len(splits.test) == 4


@pytest.mark.parametrize(
    ("mode", "colour", "extension", "expected"),
    [
        ("L", 200, "jpg", 200),
        ("P", 1, "png", None),
        ("RGBA", 200, "png", 200),
        ("LA", 200, "png", 200),
        ("CMYK", 0, "jpg", 255),
        ("1", 1, "png", 255),
        ("I;16", 200 * 256, "png", 200),
    ],
)
def test_any_mode_becomes_rgb(mode: str, colour: int, extension: str, expected: int | None, tmp_path: Path) -> None:
    path = save(tmp_path / f"image.{extension}", mode, colour)
    image = read_rgb(str(path), "it")
    assert (image.mode, image.size) == ("RGB", (6, 4))
    if expected is not None:
        assert np.abs(np.asarray(image).astype(int) - expected).max() <= 2


def test_transparent_palette_becomes_rgb_without_a_warning(tmp_path: Path) -> None:
    Image.new("P", (4, 4), 1).save(tmp_path / "p.png", transparency=bytes([0, 128]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_rgb(str(tmp_path / "p.png"), "it").mode == "RGB"


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


def test_root_needs_a_train_folder(tmp_path: Path) -> None:
    save(tmp_path / "cat" / "0.png")
    assert "no folder 'train'" in error_of(tmp_path)


def test_train_needs_classes_or_images(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    message = error_of(tmp_path)
    assert str(tmp_path / "train") in message
    assert "no class folders and no images" in message


def test_held_out_split_is_needed(tmp_path: Path) -> None:
    save(tmp_path / "train" / "cat" / "0.png")
    assert "no held-out images" in error_of(tmp_path)


def test_class_folder_without_images_is_an_error_that_names_it_and_what_is_expected(root: Path) -> None:
    (root / "train" / "empty").mkdir()
    message = error_of(root)
    assert str(root / "train" / "empty") in message
    assert ".jpg" in message


def test_class_that_is_only_held_out_is_an_error(root: Path) -> None:
    save(root / "val" / "fox" / "0.png")
    message = error_of(root)
    assert "not in 'train': fox" in message
    assert "cat, dog" in message


def test_images_beside_class_folders_are_an_error(root: Path) -> None:
    save(root / "train" / "stray.png")
    assert "stray.png" in error_of(root)


def test_images_without_class_folders_can_be_pretrained_on_and_not_evaluated(tmp_path: Path) -> None:
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


def test_imagenette_has_900_images_all_rgb_even_the_grey_ones(real_data: Path) -> None:
    splits = open_folder(real_data / "imagenette_small")
    assert (len(splits.train), len(splits.test), len(splits.classes)) == (600, 300, 10)
    paths = sorted((real_data / "imagenette_small").rglob("*.JPEG"))
    grey = [str(path) for path in paths if Image.open(path).mode == "L"]
    assert grey, "the folder should hold some greyscale images"
    for path in grey:
        image = read_rgb(path, path)
        assert (image.mode, image.size) == ("RGB", (224, 224))
