"""A training on a user's own pictures, by the command line: what was understood is said, cost is told."""

from __future__ import annotations

import json
import zlib
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

import ssl_dc
from ssl_dc.cli import main

TINY = [
    *(
        "--data.image_size=8",
        "--backbone.width=4",
        "--backbone.stem=cifar",
        "--objective.expander_width=16",
        "--budget=0.5",
    ),
    *("--optimizer.name=adamw", "--training.batch_size=8", "--training.epochs=1", "--training.workers=0"),
]


def call(*words: object) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


def train(root: Path, *words: object) -> Result:
    return call("train", "--data=folder", f"--data-root={root}", *TINY, *words)


def picture(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(zlib.crc32(path.name.encode())).integers(0, 256, (9, 12, 3), np.uint8)
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture
def heap(tmp_path: Path) -> Path:
    """Forty pictures in three folders, and four files beside them."""
    root = tmp_path / "photos"
    for number in range(40):
        picture(root / ("2021", "2022/summer", ".")[number % 3] / f"{number}.png")
    (root / "notes.txt").write_text("words")
    (root / "Thumbs.db").write_bytes(b"x" * 99)
    (root / "empty.jpg").touch()
    (root / "half.png").write_bytes((root / "2021" / "0.png").read_bytes()[:100])
    return root


@pytest.mark.long
@pytest.mark.usefixtures("timed_briefly")
def test_a_heap_of_pictures_is_trained_on_and_its_cost_is_reported(heap: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    result = train(heap, "--output", run, "--json")
    assert result.exit_code == 0, result.stderr
    understood = (
        f"{heap}: 40 pictures, no labels; 8 of them are held out, to calibrate gates and measure cost; 4 files left out:"
        f" 2 not pictures, 2 broken; listed in {run / 'left_out.json'}"
    )
    assert understood in result.stderr.splitlines()
    listed = json.loads((run / "left_out.json").read_text())
    assert {kind: sorted(Path(path).name for path in paths) for kind, paths in listed.items()} == {
        "not pictures": ["Thumbs.db", "notes.txt"],
        "broken": ["empty.jpg", "half.png"],
    }
    said = json.loads(result.stdout)
    assert said["measured_on"] == "4 held-out images"
    assert said["routes"]["gated"]["knn1"] is None
    assert 0 < said["routes"]["gated"]["ratio"] < 1
    cost = call("cost", run)
    assert cost.exit_code == 0, cost.stderr
    assert "the mean over 4 held-out images" in cost.stdout
    exported = call("export", run, "--route", "gated", "--static", "0.5", "--format", "torch", "--json")
    assert exported.exit_code == 0, exported.stderr
    networks = json.loads(exported.stdout)["networks"]
    assert {name: network["top1"] for name, network in networks.items()} == dict.fromkeys(("dense", "gated", "static"))
    assert networks["static"]["macs"] < networks["dense"]["macs"]
    evaluated = call("evaluate", run)
    assert evaluated.exit_code == 2
    assert "evaluation needs labels" in evaluated.stderr
    assert ssl_dc.load(run).features(heap).shape[0] == 40


@pytest.mark.long
def test_a_picture_that_is_damaged_within_is_stood_in_for_where_there_are_no_labels(heap: Path, tmp_path: Path) -> None:
    path = heap / "2021" / "3.png"
    content = bytearray(path.read_bytes())
    content[60:90] = bytes(30)  # its end is that of a whole file, so that it is met with in training only
    path.write_bytes(content)
    run = tmp_path / "run"
    result = train(heap, "--output", run)
    assert result.exit_code == 0, result.stderr
    assert f"1 image could not be read, and another stood in: {run / 'bad_images.json'}" in result.stderr
    assert str(path) in (run / "bad_images.json").read_text()
    stopped = train(heap, "--bad-images=stop", "--output", tmp_path / "other")
    assert stopped.exit_code != 0
    assert "cannot be read" in stopped.stderr


@pytest.mark.long
def test_labelled_pictures_are_said_to_be_so(tmp_path: Path) -> None:
    for number in range(40):
        picture(tmp_path / "data" / "train" / ("cat", "dog")[number % 2] / f"{number}.png")
    result = train(tmp_path / "data", "--output", tmp_path / "run", "--json")
    assert result.exit_code == 0, result.stderr
    understood = "32 pictures in 2 classes to train on, 8 held out (0.2 of each class, since there is no folder val)"
    assert f"{tmp_path / 'data'}: {understood}" in result.stderr.splitlines()
    assert json.loads(result.stdout)["routes"]["gated"]["knn1"] is not None
    assert not (tmp_path / "run" / "left_out.json").exists()


@pytest.mark.parametrize(
    ("root", "message"), [("a\0b", "holds a NUL character"), ("", "is empty; name a folder"), ("~", "holds no pictures")]
)
def test_a_root_that_is_no_folder_is_one_message(
    root: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    result = call("train", "--data=folder", "--data.root", root, *TINY)
    assert result.exit_code == 2
    *_, last = result.stderr.splitlines()
    assert message in last
    if root == "~":
        assert f"folder {tmp_path}" in last


@pytest.mark.parametrize(
    ("key", "value"), [("mean", "[123.7,116.3,103.5]"), ("std", "[58.4,57.1,57.4]"), ("mean", "[-0.1,0,0]")]
)
def test_colours_of_0_to_255_are_refused(key: str, value: str) -> None:
    result = call("config", "show", "--set", f"data.{key}={value}")
    assert result.exit_code == 2
    assert f"data.{key}" in result.stderr
    assert ("divide by 255: [0." in result.stderr) == ("-" not in value)
