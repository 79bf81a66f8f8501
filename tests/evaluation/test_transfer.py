"""Transfer to another data set; which options belong to which protocol."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

import ssl_dc
from ssl_dc.cli import main
from ssl_dc.config import resolve, uniform_layer
from ssl_dc.errors import ConfigError, DataError
from ssl_dc.evaluation.linear import score_linear
from ssl_dc.evaluation.options import options_model
from ssl_dc.evaluation.scores import extract_splits
from ssl_dc.evaluation.transfer import target_splits
from ssl_dc.model import Model
from ssl_dc.plugins.registry import registry
from ssl_dc.routes import Route
from ssl_dc.run_folder import RunFolder

PROTOCOLS = registry().names("protocol")

SETTINGS = {
    "backbone.width": 4,
    "data.image_size": 12,
    "data.mean": (0.1, 0.2, 0.3),
    "data.std": (0.4, 0.5, 0.6),
    "data.limit": 64,
    "data.test_limit": 40,
    "objective.expander_width": 16,
    "training.workers": 0,
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose own data set is not there any more."""
    gone = {**SETTINGS, "data.name": "folder", "data.root": "/not/there", "backbone.stem": "cifar"}
    model = Model.untrained(resolve([uniform_layer(gone, "test")]).config)
    folder = RunFolder.create(tmp_path_factory.mktemp("transfer") / "run", model.config)
    folder.save_model(model.encoder)
    return folder.path


@pytest.fixture(scope="module")
def colours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Red and blue images of 20x16, 10 and 6 of each to learn from, 4 of each held out."""
    root = tmp_path_factory.mktemp("colours")
    rng = np.random.default_rng(0)
    for split, counts in (("train", (10, 6)), ("val", (4, 4))):
        for channel, (name, count) in enumerate(zip(("blue", "red"), counts, strict=True)):
            folder = root / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(0, 60, (16, 20, 3), dtype=np.uint8)
                pixels[..., 2 - 2 * channel] += 180
                Image.fromarray(pixels).save(folder / f"{number}.png")
    return root


def call(run: Path, *options: str | Path) -> Any:
    return CliRunner().invoke(main, ["evaluate", str(run), *map(str, options)], prog_name="ssl-dc")


def message(run: Path, *options: str | Path) -> str:
    said = call(run, *options)
    assert said.exit_code == 2, said.stderr or said.exception
    assert said.stdout == ""
    text: str = said.stderr
    return text


def test_images_have_the_models_size_and_normalisation(run: Path, colours: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    dense = Model.dense
    monkeypatch.setattr(Model, "dense", lambda self, x: seen.append(x.clone()) or dense(self, x))
    ssl_dc.evaluate(run, "transfer", to="folder", to_root=colours, seeds=1, epochs=1)
    assert [tuple(x.shape) for x in seen] == [(16, 3, 12, 12), (8, 3, 12, 12)]
    with Image.open(colours / "train" / "blue" / "0.png") as image:
        small = image.resize((15, 12), Image.Resampling.BICUBIC).crop((1, 0, 13, 12))
    mean, std = np.array(SETTINGS["data.mean"]), np.array(SETTINGS["data.std"])
    expected = (np.asarray(small) / 255 - mean) / std
    found = seen[0][0].permute(1, 2, 0).numpy()
    # Half a pixel of the crop may lie either side; the mean colour cannot.
    assert np.allclose(found.mean(axis=(0, 1)), expected.mean(axis=(0, 1)), atol=0.02)


def test_it_is_the_linear_protocol_on_the_other_data(run: Path, colours: Path) -> None:
    found = ssl_dc.evaluate(run, "transfer", to="folder", to_root=colours, seeds=2, epochs=5)
    expected = score_linear(extract_splits(ssl_dc.load(run), target_splits("folder", root=colours)), seeds=2, epochs=5)
    assert found.routes == expected.routes
    assert set(found.routes) == {Route.DENSE, Route.GATED}
    assert found.protocol == "transfer"
    assert found.settings == {"to": "folder", "to_root": str(colours), "seeds": 2, "epochs": 5}
    assert (found.train_images, found.test_images) == (16, 8)


def test_the_classes_are_learned(run: Path, colours: Path) -> None:
    found = ssl_dc.evaluate(run, "transfer", to="folder", to_root=colours, seeds=2, epochs=100)
    assert found.routes[Route.DENSE].top1 > 90


def test_augmented_crops_have_the_models_size_too(run: Path, colours: Path) -> None:
    found = ssl_dc.evaluate(run, "transfer", to="folder", to_root=colours, seeds=1, epochs=2, augment=True)
    assert found.settings["augment"] == "crops of 0.08 to 1, flips"
    assert found.test_images == 8


def test_a_limit_is_balanced_over_classes_and_leaves_the_held_out_images(colours: Path) -> None:
    splits = target_splits("folder", root=colours, limit=8)
    assert splits.evaluation_train.labels is not None
    assert np.bincount(splits.evaluation_train.labels).tolist() == [4, 4]
    assert len(splits.test) == 8
    assert splits.classes == ("blue", "red")


def test_parquet_files_are_targets_with_their_columns_named(run: Path, colours: Path, tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    for source, split in (("train", "train"), ("val", "test")):
        files = sorted((colours / source).rglob("*.png"))
        rows = {
            "img": [{"bytes": file.read_bytes(), "path": file.name} for file in files],
            "fine_label": [int(file.parent.name == "red") for file in files],
        }
        parquet.write_table(pa.table(rows), tmp_path / f"{split}.parquet")
    said = call(
        *(run, "--protocol", "transfer", "--to", "parquet", "--to-root", tmp_path, "--seeds", "2", "--epochs", "5"),
        *("--to-set", "image_column=img", "--to-set", "label_column=fine_label", "--json"),
    )
    assert said.exit_code == 0, said.stderr
    found = json.loads(said.stdout)
    expected = ssl_dc.evaluate(run, "transfer", to="folder", to_root=colours, seeds=2, epochs=5)
    assert found["to"] == "parquet"
    assert found["routes"]["gated"]["top1"] == expected.routes[Route.GATED].top1


def test_built_in_data_sets_are_targets(run: Path) -> None:
    said = call(
        *(run, "--protocol", "transfer", "--to", "digits", "--to-limit", "30", "--to-set", "test_limit=20"),
        *("--epochs", "1", "--seeds", "1"),
    )
    assert said.exit_code == 0, said.stderr
    assert "transfer (to digits" in said.stdout
    assert "on 20 held-out images" in said.stdout


def test_what_is_wrong_with_the_target_is_said_in_the_options_of_transfer(run: Path, tmp_path: Path) -> None:
    transfer = ("--protocol", "transfer", "--to")
    assert "unknown data set 'nope'" in message(run, *transfer, "nope")
    absent = message(run, *transfer, "cifar10", "--to-root", tmp_path)
    assert "--to-root" in absent
    assert "--to-set download=true" in absent
    assert "--data-root" not in absent
    assert "--to-root FOLDER" in message(run, *transfer, "folder")
    assert "--to-set foo: unknown key" in message(run, *transfer, "digits", "--to-set", "foo=1")
    assert "KEY=VALUE" in message(run, *transfer, "digits", "--to-set", "foo")
    with pytest.raises(DataError, match="transfer to folder"):
        target_splits("folder", root=tmp_path)


@pytest.mark.parametrize("key", ["image_size", "mean", "std"])
def test_how_images_are_prepared_is_not_for_the_target_to_say(key: str) -> None:
    with pytest.raises(ConfigError, match="model's own"):
        target_splits("digits", settings={key: 8})


# options and protocols


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--to", "cifar100"), "--to belongs to protocol transfer, not to knn"),
        (("--protocol", "linear", "--to-root", "x"), "--to-root belongs to protocol transfer, not to linear"),
        (("--protocol", "linear", "--to-set", "a=1"), "--to-set belongs to protocol transfer, not to linear"),
        (("--seeds", "3"), "--seeds belongs to protocol curve, finetune, linear or transfer, not to knn"),
        (("--augment",), "--augment belongs to protocol linear or transfer, not to knn"),
        (("--protocol", "gates", "--k", "3"), "--k belongs to protocol knn, not to gates"),
        (("--protocol", "gates", "--points", "30"), "--points belongs to protocol tsne or umap, not to gates"),
        (
            ("--output", "x.png"),
            "--output belongs to protocol curve, gates, tsne or umap, not to knn; knn takes --k or --metric",
        ),
        (("--protocol", "transfer"), "protocol transfer needs --to"),
    ],
)
def test_an_option_of_another_protocol_is_an_error_that_names_it(run: Path, options: tuple[str, ...], says: str) -> None:
    text = message(run, *options)
    assert says in text
    assert text.count("\n") == 1


@pytest.mark.parametrize(
    ("protocol", "option", "others"),
    [
        ("knn", ("--k", "0"), ()),
        ("tsne", ("--points", "9"), ()),
        ("transfer", ("--to-limit", "1"), ("--to", "digits")),
        ("linear", ("--crop-scale", "0", "1"), ("--augment",)),
        ("linear", ("--epochs", "many"), ()),
    ],
)
def test_values_out_of_range_are_refused(
    run: Path, protocol: str, option: tuple[str, ...], others: tuple[str, ...]
) -> None:
    assert f"{option[0]} " in message(run, "--protocol", protocol, *option, *others)


def test_the_library_refuses_likewise(run: Path) -> None:
    with pytest.raises(ConfigError, match=r"^k belongs to protocol knn, not to linear; linear takes "):
        ssl_dc.evaluate(run, "linear", k=3)
    with pytest.raises(ConfigError, match=r"^neighbours belongs to no protocol; knn takes "):
        ssl_dc.evaluate(run, "knn", neighbours=3)
    with pytest.raises(
        ConfigError, match="unknown evaluation protocol 'k-nn'; there are: curve, finetune, gates, knn, linear"
    ):
        ssl_dc.evaluate(run, "k-nn")


@pytest.mark.parametrize("name", PROTOCOLS)
def test_every_option_of_a_protocol_is_one_of_the_command(name: str) -> None:
    said = CliRunner().invoke(main, ["evaluate", "--protocol", name, "--help"])
    for option in options_model(name).model_fields.keys() - {"name"}:
        assert f"--{option.replace('_', '-')} " in said.stdout


def test_help_lists_the_protocols(run: Path) -> None:
    said = CliRunner().invoke(main, ["evaluate", "--help"])
    for name in PROTOCOLS:
        assert name in said.stdout
        assert registry().find("protocol", name).part.summary in said.stdout
