"""Images that cannot be read: named, or stood in for, counted and listed; a data set that changed is noticed."""

from __future__ import annotations

import json
import os
import shutil
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result
from PIL import Image
from safetensors.torch import load_file
from torch import equal

import ssl_dc
from helpers.command_line import call
from helpers.settings import TINY, as_options
from ssl_dc.data.base import ImageSet, Labels, spread
from ssl_dc.data.digits import ArrayImages
from ssl_dc.data.folder import FolderImages, read_rgb
from ssl_dc.data.subsets import Subset
from ssl_dc.data.unreadable import Readable
from ssl_dc.errors import ConfigError, DataError, RunError
from ssl_dc.trackers.base import Watcher

SETTINGS: dict[str, Any] = {
    **{key: value for key, value in TINY.items() if not key.endswith("limit")},
    "data.name": "folder",
    "backbone.stem": "cifar",
    "optimizer.name": "adamw",
    "training.batch_size": 8,
    "training.epochs": 3,
}


def png(width: int, height: int) -> bytes:
    """The head of a PNG file that says it is that large."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")


def truncated(content: bytes) -> bytes:
    return content[: len(content) // 2]


POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n(canary) (w) file\nshowpage\n"
BROKEN: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda _: b"",
    "truncated": truncated,
    "text": lambda _: b"not an image at all",
    "a bomb": lambda _: png(40_000, 40_000),
    "a smaller bomb": lambda _: png(10_000, 10_000),
    "EPS, on which Pillow runs Ghostscript": lambda _: POSTSCRIPT,
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two classes of 12 training images and 4 held out."""
    draw = np.random.default_rng(0)
    for split, count in (("train", 12), ("val", 4)):
        for name in ("cat", "dog"):
            folder = tmp_path / "data" / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = draw.integers(0, 255, (10, 10, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{number:02}.png")
    return tmp_path / "data"


def damage(path: Path, how: str) -> None:
    path.write_bytes(BROKEN[how](path.read_bytes()))


def settings(root: Path, **more: Any) -> dict[str, Any]:
    return {**SETTINGS, "data.root": str(root), **{key.replace("__", "."): value for key, value in more.items()}}


def train(root: Path, output: Path, *words: str) -> Result:
    return call("train", *as_options(settings(root)), "--output", output, *words)


@pytest.mark.long
@pytest.mark.parametrize("how", BROKEN)
def test_a_broken_file_is_named(tmp_path: Path, root: Path, how: str) -> None:
    path = root / "train" / "dog" / "03.png"
    damage(path, how)
    with pytest.raises(DataError, match=f"image {path} cannot be read: "):
        read_rgb(str(path), str(path))
    result = train(root, tmp_path / "run")
    assert result.exit_code == 1
    *_, last = result.stderr.splitlines()
    assert last.startswith(f"ssl-dc: image {path} cannot be read: ")
    assert last.endswith(
        f"go on with: ssl-dc train --resume {tmp_path / 'run'} (with --bad-images skip, it may be left out)"
    )


@pytest.mark.long
@pytest.mark.parametrize("workers", [0, 2])
def test_broken_files_are_skipped_counted_and_listed(tmp_path: Path, root: Path, workers: int) -> None:
    paths = [root / "train" / "dog" / "03.png", root / "train" / "cat" / "11.png", root / "val" / "cat" / "00.png"]
    for path, how in zip(paths, ("empty", "truncated", "text"), strict=True):
        damage(path, how)
    result = train(root, tmp_path / "run", "--bad-images", "skip", "--workers", str(workers))
    assert result.exit_code == 0, result.stderr
    assert f"3 images could not be read, and others stood in: {tmp_path / 'run' / 'bad_images.json'}" in result.stderr
    listed = json.loads((tmp_path / "run" / "bad_images.json").read_text())
    assert {split: len(reasons) for split, reasons in listed.items()} == {"train": 2, "test": 1}
    said = " ".join(listed["train"] + listed["test"])
    assert all(f"image {path} cannot be read" in said for path in paths)


@pytest.mark.long
def test_nothing_is_listed_where_all_can_be_read(tmp_path: Path, root: Path) -> None:
    result = train(root, tmp_path / "run", "--bad-images", "skip")
    assert result.exit_code == 0, result.stderr
    assert not (tmp_path / "run" / "bad_images.json").exists()
    ssl_dc.train(settings(root), output=tmp_path / "other")
    for name in ("model.safetensors", "metrics.jsonl", "result.json"):
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "other" / name).read_bytes()


class Removing(Watcher):
    """Removes a file after a step."""

    def __init__(self, path: Path, step: int) -> None:
        self.path, self.step = path, step

    def on_step_end(self, step: int) -> None:
        if step == self.step:
            self.path.unlink()


@pytest.mark.long
def test_a_file_removed_in_mid_epoch_is_named_and_the_run_goes_on_when_it_is_back(tmp_path: Path, root: Path) -> None:
    path, output = root / "train" / "dog" / "05.png", tmp_path / "run"
    content = path.read_bytes()
    ssl_dc.train(settings(root, training__checkpoint_every=1), output=tmp_path / "whole")
    with pytest.raises(RunError, match=rf"image {path} cannot be read.*go on with: ssl-dc train --resume {output}"):
        ssl_dc.train(settings(root, training__checkpoint_every=1), output=output, watchers=[Removing(path, 4)])
    assert sorted((output / "checkpoints").iterdir())[-1].name >= "step-00000004"
    result = call("train", "--resume", output)
    assert result.exit_code == 2
    assert "it had 24 images, and has 23 now" in result.stderr
    assert "--accept-changed-data" in result.stderr
    path.write_bytes(content)
    ssl_dc.resume(output)
    for name in ("model.safetensors", "metrics.jsonl", "result.json"):
        assert (output / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


@pytest.mark.long
def test_a_run_may_go_on_with_changed_data_if_that_is_asked_for(tmp_path: Path, root: Path) -> None:
    output = tmp_path / "run"
    path = root / "train" / "dog" / "05.png"
    with pytest.raises(RunError):
        ssl_dc.train(settings(root), output=output, watchers=[Removing(path, 4)])
    result = call("train", "--resume", output, "--accept-changed-data")
    assert result.exit_code == 0, result.stderr
    assert json.loads((output / "data.json").read_text())["images"] == 23
    ssl_dc.resume(output)  # it is now what the run is known by


@pytest.mark.long
def test_a_broken_file_can_be_skipped_by_a_run_that_it_stopped(tmp_path: Path, root: Path) -> None:
    path, output = root / "train" / "dog" / "05.png", tmp_path / "run"

    class Damaging(Removing):
        def on_step_end(self, step: int) -> None:
            if step == self.step:
                self.path.write_bytes(b"\0" * self.path.stat().st_size)

    with pytest.raises(RunError):
        ssl_dc.train(settings(root), output=output, watchers=[Damaging(path, 4)])
    result = call("train", "--resume", output, "--bad-images", "skip")
    assert result.exit_code == 0, result.stderr
    assert str(path) in (output / "bad_images.json").read_text()


@pytest.mark.long
def test_data_that_has_moved_is_the_same(tmp_path: Path, root: Path) -> None:
    ssl_dc.train(settings(root), output=tmp_path / "run")
    moved = shutil.move(root, tmp_path / "moved")
    ssl_dc.resume(tmp_path / "run", data_root=moved)


def test_accepting_changed_data_belongs_to_resume(tmp_path: Path, root: Path) -> None:
    result = train(root, tmp_path / "run", "--accept-changed-data")
    assert result.exit_code == 2
    assert "belongs to --resume" in result.stderr


@pytest.mark.long
def test_resume_takes_only_a_valid_word_for_bad_images(tmp_path: Path, root: Path) -> None:
    ssl_dc.train(settings(root), output=tmp_path / "run")
    with pytest.raises(ConfigError, match=r"data\.bad_images = 'mend'"):
        ssl_dc.resume(tmp_path / "run", bad_images="mend")


# what stands in


class Numbers(ImageSet):
    """Image i is of colour i; some cannot be read."""

    def __init__(self, count: int, bad: set[int], labels: list[int] | None = None) -> None:
        self.count, self.bad, self.classes = count, bad, labels

    @property
    def labels(self) -> Labels | None:
        return None if self.classes is None else np.array(self.classes)

    def __len__(self) -> int:
        return self.count

    def image(self, index: int) -> Image.Image:
        if index in self.bad:
            raise DataError(f"image {index} is bad")
        return Image.new("RGB", (2, 2), (index, 0, 0))


def seen(images: ImageSet) -> list[int]:
    return [images.image(index).getpixel((0, 0))[0] for index in range(len(images))]  # type: ignore[index]


def test_the_next_one_stands_in_and_after_the_last_the_first() -> None:
    readable = Readable(Numbers(6, {1, 2, 5}))
    assert seen(readable) == [0, 3, 3, 3, 4, 0]
    assert readable.left_out() == [f"image {index} is bad" for index in (1, 2, 5)]


def test_what_stands_in_is_of_the_same_class() -> None:
    readable = Readable(Numbers(6, {0, 5}, [0, 1, 0, 1, 0, 1]))
    assert seen(readable) == [2, 1, 2, 3, 4, 1]


def test_what_stands_in_does_not_depend_on_what_was_read_before() -> None:
    bad = {1, 2, 5}
    for start in range(6):
        readable = Readable(Numbers(6, bad))
        readable.image(start)
        assert seen(readable) == [0, 3, 3, 3, 4, 0]


def test_a_class_of_which_nothing_can_be_read_is_an_error() -> None:
    with pytest.raises(DataError, match=r"no image of its class is left .* image 1 is bad"):
        Readable(Numbers(4, {1, 3}, [0, 1, 0, 1])).image(1)


# fingerprints


def test_a_fingerprint_is_that_of_the_images_and_labels() -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (200, 4, 4, 3), dtype=np.uint8)
    labels = np.arange(200) % 3
    other = pixels.copy()
    other[77, 2, 2, 1] ^= 1
    sets = [
        ArrayImages(pixels, labels),
        ArrayImages(other, labels),
        ArrayImages(pixels, labels[::-1]),
        ArrayImages(pixels, None),
        ArrayImages(pixels[:199], labels[:199]),
        Subset(ArrayImages(pixels, labels), np.arange(199)),
        Subset(ArrayImages(pixels, labels), np.arange(1, 200)),
    ]
    assert len({images.fingerprint() for images in sets}) == len(sets)
    assert ArrayImages(pixels.copy(), labels.copy()).fingerprint() == sets[0].fingerprint()
    assert Readable(sets[0]).fingerprint() == sets[0].fingerprint()


def test_the_fingerprint_of_any_set_is_of_some_of_its_pixels() -> None:
    prints = {Numbers(5, set()).fingerprint(), Numbers(6, set()).fingerprint(), Numbers(5, {2}).fingerprint()}
    prints.add(Numbers(5, set(), [0, 1, 0, 1, 0]).fingerprint())
    assert len(prints) == 4
    assert Numbers(5, set()).fingerprint() == Numbers(5, set()).fingerprint()


@pytest.mark.parametrize(("count", "numbers"), [(0, []), (1, [0]), (3, [0, 1, 2])])
def test_few_images_are_all_looked_at(count: int, numbers: list[int]) -> None:
    assert spread(count) == numbers


def test_many_images_are_looked_at_from_the_first_to_the_last() -> None:
    assert len(set(spread(1000))) == 64
    assert (spread(1000)[0], spread(1000)[-1]) == (0, 999)


def test_the_fingerprint_of_files_sees_names_sizes_and_classes(root: Path) -> None:
    paths = sorted(str(path) for path in (root / "train").rglob("*.png"))
    labels = np.zeros(24, dtype=np.int64)

    def now() -> str:
        return FolderImages(paths, labels).fingerprint()

    first = now()
    assert now() == first
    assert FolderImages(paths, labels + 1).fingerprint() != first
    assert FolderImages(paths[1:], labels[1:]).fingerprint() != first
    with open(paths[3], "ab") as file:
        file.write(b"\0")
    assert now() != first
    os.unlink(paths[3])
    assert now() != first
    assert FolderImages(paths[:1], None).fingerprint()
    assert FolderImages([], None).fingerprint()


@pytest.mark.long
def test_a_resumed_run_on_other_pixels_of_the_same_size_is_told(tmp_path: Path) -> None:
    """Of a set that is in memory every pixel counts."""
    digits = {**SETTINGS, "data.name": "digits", "data.limit": 32, "data.test_limit": 20}
    ssl_dc.train(digits, output=tmp_path / "run")
    record = json.loads((tmp_path / "run" / "data.json").read_text())
    (tmp_path / "run" / "data.json").write_text(json.dumps({**record, "fingerprint": "0" * 64}))
    with pytest.raises(ConfigError, match="not those that it began with"):
        ssl_dc.resume(tmp_path / "run")
    (tmp_path / "run" / "data.json").unlink()  # a run of before there were fingerprints
    before = load_file(tmp_path / "run" / "model.safetensors")
    ssl_dc.resume(tmp_path / "run")
    after = load_file(tmp_path / "run" / "model.safetensors")
    assert all(equal(before[name], after[name]) for name in before)


def test_one_process_alone_asks_no_other_which_images_could_not_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    images = Readable(ArrayImages(np.zeros((3, 8, 8, 3), np.uint8), None))
    monkeypatch.setattr("ssl_dc.data.unreadable.world_size", lambda: 2)
    assert images.left_out(together=False) == []
    with pytest.raises(ValueError, match="process group"):
        images.left_out()


def test_a_run_that_fails_in_one_process_waits_for_no_other(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bool] = []

    def left_out(_: Readable, *, together: bool) -> list[str]:
        asked.append(together)
        return []

    monkeypatch.setattr(Readable, "left_out", left_out)

    class Fails(Watcher):
        def on_step_end(self, step: int) -> None:
            raise RunError(f"disk full after step {step}")

    with pytest.raises(RunError, match="disk full"):
        ssl_dc.train(settings(root, **{"data.bad_images": "skip"}), output=tmp_path / "run", watchers=[Fails()])
    assert asked
    assert not any(asked)
