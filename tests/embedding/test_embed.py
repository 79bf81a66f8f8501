"""Features of whole data sets in files: what stands in them, and how a killed job goes on."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

import ssl_dc
from helpers.command_line import done, message, parsed
from helpers.forked import run_forked, run_two_forked
from helpers.settings import SHORT, TINY
from ssl_dc.embedding.embed import BATCH
from ssl_dc.errors import ConfigError, DataError, RunError
from ssl_dc.run_folder import RunFolder
from ssl_dc.trackers.base import Watcher


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    settings = {**SHORT, "budget.target": [0.3, 0.6]}
    return ssl_dc.train(settings, output=tmp_path_factory.mktemp("embedded") / "run").folder


@pytest.fixture(scope="module")
def whole(run: Path) -> Path:
    """The features of all 1,797 digits, by an uninterrupted call."""
    output = run.parent / "whole.parquet"
    ssl_dc.embed(run, "digits", output=output, route="gated", shard_size=300)
    return output


def table_of(path: Path) -> dict[str, list[Any]]:
    return dict(pq.read_table(path).to_pydict())


def photographs(folder: Path, count: int) -> list[Path]:
    """Pictures in two folders, which are no classes."""
    paths = [folder / "ab"[number % 2] / f"{number:03}.png" for number in range(count)]
    for number, path in enumerate(paths):
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.effect_noise((64, 64), 10 + number).convert("RGB").save(path)
    return sorted(paths)


@pytest.mark.parametrize("route", ["dense", "gated", "gated@0.6", "gated@0.45"])
def test_a_row_has_what_the_model_makes_of_its_picture_and_what_it_cost(run: Path, tmp_path: Path, route: str) -> None:
    paths = photographs(tmp_path / "pictures", 5)
    name, _, budget = route.partition("@")
    budgets = {"budget": float(budget)} if budget else {}
    report = ssl_dc.embed(run, tmp_path / "pictures", output=tmp_path / "f.parquet", route=name, **budgets)
    table = table_of(tmp_path / "f.parquet")
    assert table["name"] == [str(path) for path in paths]
    assert set(table["split"]) == {"train"}, "nothing is held out of pictures that are to be embedded"
    assert set(table["label"]) == set(table["class"]) == {None}
    model = ssl_dc.load(run)
    x = model.transform(paths)
    features, macs = model.dense(x), torch.full((5,), float(model.cost.dense_macs))
    if name == "gated":
        features, macs, *_ = model.gated(x, float(budget) if budget else None)
    np.testing.assert_allclose(table["features"], features.numpy(), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(table["macs"], macs.numpy())
    assert (report.images, report.feature_dim) == (5, model.feature_dim)
    assert report.macs == pytest.approx(float(macs.double().mean()))
    assert report.ratio == pytest.approx(report.macs / model.cost.dense_macs)


def test_a_data_set_with_classes_has_them_in_its_rows(whole: Path) -> None:
    table = table_of(whole)
    splits = ssl_dc.open_splits(ssl_dc.Digits(ssl_dc.DigitsOptions(image_size=8)))
    assert table["split"] == ["train"] * len(splits.train) + ["test"] * len(splits.test)
    assert splits.train.labels is not None
    assert table["label"][: len(splits.train)] == splits.train.labels.tolist()
    assert table["class"] == [splits.classes[label] for label in table["label"]]
    assert [group.num_rows for group in row_groups(whole)] == [300, 300, 300, 300, 300, 297]


def row_groups(path: Path) -> list[Any]:
    data = pq.ParquetFile(path).metadata
    return [data.row_group(number) for number in range(data.num_row_groups)]


def test_npy_and_its_table_say_the_same(run: Path, whole: Path, tmp_path: Path) -> None:
    ssl_dc.embed(run, "digits", output=tmp_path / "f.npy", route="gated", shard_size=512)
    features = np.load(tmp_path / "f.npy")
    table = table_of(whole)
    assert features.dtype == np.float32
    # 300 is no multiple of the batch, so that some batches are others
    np.testing.assert_allclose(features, table["features"], rtol=1e-4, atol=1e-5)
    with (tmp_path / "f.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == table["name"]
    assert [int(row["label"]) for row in rows] == table["label"]
    assert [float(row["macs"]) for row in rows] == pytest.approx(table["macs"])


def test_the_runs_own_images_are_taken_where_none_are_named(run: Path, tmp_path: Path) -> None:
    report = ssl_dc.embed(run, output=tmp_path / "f.parquet", splits=["train"])
    assert report.sizes == {"train": SHORT["data.limit"]}
    assert report.as_json()["route"] == "dense"


KILLED = """
import os, signal, sys
import ssl_dc
from ssl_dc.embedding import files
from ssl_dc.trackers.base import Watcher

run, output, when, number = sys.argv[1:]

def kill():
    os.kill(os.getpid(), signal.SIGKILL)

class Kills(Watcher):
    def on_step_end(self, step):
        if when == "computing" and step == int(number):
            kill()

columns, calls = files._columns, []
def dies(*arguments):
    calls.append(1)
    if when == "writing" and len(calls) == int(number):
        kill()
    return columns(*arguments)
files._columns = dies
ssl_dc.embed(run, "digits", output=output, route="gated", shard_size=300, watchers=[Kills()])
"""


@pytest.mark.long
@pytest.mark.parametrize(("when", "number", "left"), [("computing", 5, 1197), ("computing", 1, 1797), ("writing", 3, 0)])
def test_a_killed_job_goes_on_to_the_same_file(
    run: Path, whole: Path, tmp_path: Path, when: str, number: int, left: int
) -> None:
    output = tmp_path / "f.parquet"
    killed = run_forked(KILLED, run, output, when, str(number))
    assert killed.returncode == -9, killed.stderr
    assert not output.exists()
    assert (tmp_path / "f.parquet.parts").is_dir()
    report = parsed("embed", run, "digits", "--route", "gated", "--shard-size", "300", "--output", output)
    assert report["computed"] == left
    assert report["images"] == 1797
    assert output.read_bytes() == whole.read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == ["f.parquet"]


@pytest.mark.long
def test_a_shard_that_is_damaged_is_made_anew(run: Path, whole: Path, tmp_path: Path) -> None:
    output = tmp_path / "f.parquet"

    class Stops(Watcher):
        def on_step_end(self, step: int) -> None:
            if step == 5:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ssl_dc.embed(run, "digits", output=output, route="gated", shard_size=300, watchers=[Stops()])
    shards = sorted(tmp_path.glob("f.parquet.parts/shard-*"))
    assert len(shards) == 2
    shards[1].write_bytes(shards[1].read_bytes()[:-100])
    assert ssl_dc.embed(run, "digits", output=output, route="gated", shard_size=300).computed == 1497
    assert output.read_bytes() == whole.read_bytes()


IN_TWO = """
import os, sys
import ssl_dc
from ssl_dc.distributed import leave_launch
from ssl_dc.training.accelerator import make_accelerator

make_accelerator("no")
report = ssl_dc.embed(sys.argv[1], "digits", output=sys.argv[2], route="gated", shard_size=300)
print(f"process {os.environ['RANK']}: {report.images} {report.computed}", flush=True)
leave_launch()
os._exit(0)  # gloo's threads may abort a process that ends while they work
"""


@pytest.mark.long
def test_two_processes_write_the_file_of_one(run: Path, whole: Path, tmp_path: Path) -> None:
    launched = run_two_forked(IN_TWO, run, tmp_path / "f.parquet")
    assert launched.returncode == 0, launched.stderr[-3000:]
    assert sorted(launched.stdout.split()) == sorted(["process", "0:", "1797", "1797", "process", "1:", "1797", "1797"])
    assert (tmp_path / "f.parquet").read_bytes() == whole.read_bytes()


def test_a_picture_without_label_that_cannot_be_read_has_no_row_and_is_named(run: Path, tmp_path: Path) -> None:
    encoded = [path.read_bytes() for path in photographs(tmp_path / "pictures", 6)]
    encoded[2] = encoded[2][: len(encoded[2]) // 2]
    file = tmp_path / "pictures.parquet"
    written_as_rows(encoded, file)
    report = ssl_dc.embed(run, file, output=tmp_path / "f.npy", shard_size=2)
    assert report.images == 5
    (said,) = report.left_out
    assert f"2 of {file}" in said
    assert np.load(tmp_path / "f.npy").shape == (5, report.feature_dim)
    with (tmp_path / "f.csv").open(newline="") as text:
        assert [row["name"] for row in csv.DictReader(text)] == [f"{number} of {file}" for number in (0, 1, 3, 4, 5)]
    (table,) = report.tables()
    assert "1 image could not be read, and has no row:" in table.note


def written_as_rows(encoded: list[bytes], file: Path) -> None:
    """Write pictures as parquet, as the Hub has them."""
    pq.write_table(pa.table({"image": pa.array([{"bytes": content, "path": None} for content in encoded])}), file)


def test_what_was_understood_of_a_folder_is_said(run: Path, tmp_path: Path) -> None:
    photographs(tmp_path / "pictures", 6)
    (tmp_path / "pictures" / "notes.txt").write_text("no picture")
    said = done("embed", run, tmp_path / "pictures", "--output", tmp_path / "f.npy")
    assert "6 pictures, no labels; none are held out; 1 file left out: 1 not a picture" in said


@pytest.mark.long
def test_a_labelled_picture_that_cannot_be_read_stops_the_call_which_goes_on_when_it_can(run: Path, tmp_path: Path) -> None:
    root = tmp_path / "labelled"
    for path in photographs(tmp_path / "pictures", 12):
        target = root / "train" / path.parent.name / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    broken = root / "train" / "b" / "003.png"
    content = broken.read_bytes()
    broken.write_bytes(content[:60])
    output = tmp_path / "f.parquet"
    with pytest.raises(DataError, match=r"003\.png.*What was computed is kept, and the same call goes on with it\."):
        ssl_dc.embed(run, root, output=output, shard_size=4)
    broken.write_bytes(content)
    with pytest.raises(ConfigError, match="another embedding, which differs in data"):
        ssl_dc.embed(run, root, output=output, shard_size=4)  # the file's size is part of what is embedded
    shutil.rmtree(tmp_path / "f.parquet.parts")
    ssl_dc.embed(run, root, output=output, shard_size=4)
    assert table_of(output)["class"] == ["a"] * 6 + ["b"] * 6


@pytest.mark.long
def test_parquet_is_known_by_what_is_there(run: Path, tmp_path: Path) -> None:
    paths = photographs(tmp_path / "pictures", 4)
    file = tmp_path / "rows" / "train.parquet"
    file.parent.mkdir()
    written_as_rows([path.read_bytes() for path in paths], file)
    ssl_dc.embed(run, tmp_path / "pictures", output=tmp_path / "0.npy")
    for number, where in enumerate((file, file.parent), start=1):
        ssl_dc.embed(run, where, output=tmp_path / f"{number}.npy")
        assert np.array_equal(np.load(tmp_path / f"{number}.npy"), np.load(tmp_path / "0.npy"))
    assert (tmp_path / "1.csv").read_text().splitlines()[4].startswith(f"train,3 of {file},")


def test_what_datasets_saved_is_known_by_what_is_there(run: Path, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    paths = photographs(tmp_path / "pictures", 4)
    rows = {"image": [{"bytes": path.read_bytes(), "path": None} for path in paths]}
    features = datasets.Features({"image": datasets.Image()})
    datasets.Dataset.from_dict(rows, features=features).save_to_disk(tmp_path / "arrow")
    for number, where in enumerate((tmp_path / "pictures", tmp_path / "arrow")):
        ssl_dc.embed(run, where, output=tmp_path / f"{number}.npy")
    assert np.array_equal(np.load(tmp_path / "0.npy"), np.load(tmp_path / "1.npy"))


def test_the_command_says_what_it_wrote(run: Path, tmp_path: Path) -> None:
    said = done("embed", run, "--data-set", "limit=20", "--split", "train", "--output", tmp_path / "f.npy")
    assert "route  rows  features  MACs an image  share of dense cost  images/s" in said
    assert "dense    20 " in said
    assert "MACs paid in all" in said
    assert said.splitlines()[-2:] == [f"features: {tmp_path / 'f.npy'}", f"the other columns: {tmp_path / 'f.csv'}"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--output", "f.txt"], "its ending must be one of .parquet, .npy"),
        (["--output", "there.npy"], "it is there already"),
        (["--output", "table.npy"], "table.csv: it is there already"),
        (["--output", "no/f.npy"], "there is no folder no"),
        (["--output", "f.npy", "--budget", "0.5"], "--budget is for the gated route"),
        (["--output", "f.npy", "--route", "gated", "--budget", "0.3:0.6"], "one budget"),
        (["--output", "f.npy", "--split", "val"], "--split val: this data set has train, test"),
        (["nowhere", "--output", "f.npy"], "data nowhere: there is no such file or folder, and no data set"),
        ([".", "--data-root", "x", "--output", "f.npy"], "--data-root belongs to a data set that is named"),
        (["digits", "--data-set", "image_size=32", "--output", "f.npy"], "the model's own size"),
        (["--data-set", "image_size=32", "--output", "f.npy"], "the model's own size"),
        (["digits", "--data-set", "size=32", "--output", "f.npy"], "size"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_be_is_refused_in_a_line(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("there.npy", "table.csv"):
        Path(name).touch()
    assert said in message("embed", run, *words)


@pytest.mark.long
def test_a_model_without_gates_has_no_gated_route(tmp_path: Path) -> None:
    folder = ssl_dc.train({**TINY, "gating.name": "none", "training.epochs": 1}, output=tmp_path / "run").folder
    with pytest.raises(ConfigError, match="--route gated: this model has no gates"):
        ssl_dc.embed(folder, output=tmp_path / "f.npy", route="gated")


def test_features_that_are_not_finite_are_not_written(run: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(run, tmp_path / "run"))
    model = ssl_dc.load(folder)
    with torch.no_grad():
        next(model.encoder.parameters()).fill_(float("nan"))
    RunFolder(folder).save_model(model.encoder)
    with pytest.raises(
        RunError, match=r"are not finite, for \d+ of \d+ images \([^()]+, [^()]+, [^()]+, \.\.\.\): the network's"
    ):
        ssl_dc.embed(folder, output=tmp_path / "f.npy")
    assert not (tmp_path / "f.npy").exists()


def test_shards_of_another_embedding_are_not_mixed_in(run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "f.npy.parts"
    folder.mkdir()
    (folder / "job.json").write_text(json.dumps({"route": "gated"}))
    with pytest.raises(ConfigError, match="another embedding, which differs in route"):
        ssl_dc.embed(run, output=tmp_path / "f.npy")
    (folder / "job.json").write_text("{")
    with pytest.raises(ConfigError, match=r"job\.json cannot be read"):
        ssl_dc.embed(run, output=tmp_path / "f.npy")
    (folder / "job.json").unlink()
    (folder / "shard-000000.safetensors").touch()
    with pytest.raises(ConfigError, match=r"no job\.json that says of what"):
        ssl_dc.embed(run, output=tmp_path / "f.npy")


def test_a_batch_is_smaller_than_a_shard() -> None:
    """Otherwise the tests above say little of shards of several batches."""
    assert BATCH < 300
