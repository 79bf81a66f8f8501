"""What is in a run's folder, and what happens when it is not what it should be."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import ssl_dc
from helpers.networks import random_images
from helpers.settings import SHORT
from ssl_dc import ConfigError, DataError, RunError
from ssl_dc.config import resolve
from ssl_dc.reporting.recorded import recorded_runs
from ssl_dc.run_folder import RunFolder

PICKLES = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05", b"\x1f\x8b", b"BZh")


def assert_same(one: ssl_dc.Model, two: ssl_dc.Model) -> None:
    """The same weights to the last bit, and features that differ by no more than the memory layout's rounding."""
    for name, value in one.encoder.state_dict().items():
        assert torch.equal(value, two.encoder.state_dict()[name]), name
    assert one.routes == two.routes
    assert torch.allclose(one.dense(random_images(12, 8)), two.dense(random_images(12, 8)), atol=1e-5)
    if one.has_gates:
        ours, theirs = one.gated(random_images(12, 8)), two.gated(random_images(12, 8))
        assert torch.allclose(ours.features, theirs.features, atol=1e-5)
        assert torch.equal(ours.macs, theirs.macs)
        assert all(torch.equal(mask, theirs.masks[site]) for site, mask in ours.masks.items())


@pytest.mark.long
def test_a_loaded_model_gives_the_features_of_the_trained_one(finished_run: ssl_dc.Run) -> None:
    model = ssl_dc.load(finished_run.folder)
    assert model.config == finished_run.model.config
    assert_same(model, finished_run.model)
    untrained = ssl_dc.Model.untrained(finished_run.model.config)
    assert not torch.allclose(untrained.dense(random_images(12, 8)), model.dense(random_images(12, 8)), atol=1e-3)


def test_the_path_may_be_text(finished_run: ssl_dc.Run) -> None:
    assert ssl_dc.load(str(finished_run.folder)).feature_dim == 32


def test_config_and_weights_alone_are_a_model(finished_run: ssl_dc.Run, tmp_path: Path) -> None:
    for name in ("config.json", "model.safetensors"):
        shutil.copy(finished_run.folder / name, tmp_path)
    assert_same(ssl_dc.load(tmp_path), finished_run.model)


def test_a_model_that_was_trained_further_is_saved_and_loaded(finished_run: ssl_dc.Run, tmp_path: Path) -> None:
    model = ssl_dc.load(finished_run.folder).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for route in (ssl_dc.Route.DENSE, ssl_dc.Route.GATED):
        model(random_images(12, 8), route).features.square().mean().backward()
    optimizer.step()
    assert ssl_dc.save(model, tmp_path / "tuned") == tmp_path / "tuned"
    loaded = ssl_dc.load(tmp_path / "tuned")
    assert_same(loaded, model.eval())
    assert not torch.equal(loaded.dense(random_images(12, 8)), finished_run.model.dense(random_images(12, 8)))
    with pytest.raises(ConfigError, match="is there already and is not overwritten"):
        ssl_dc.save(model, tmp_path / "tuned")


def test_a_model_that_could_not_be_loaded_again_is_not_saved(finished_run: ssl_dc.Run, tmp_path: Path) -> None:
    half = ssl_dc.load(finished_run.folder).to(torch.bfloat16)
    with pytest.raises(RunError, match=r"the model does not hold the weights(.*\n)*.*bfloat16"):
        ssl_dc.save(half, tmp_path / "half")
    assert not (tmp_path / "half").exists()


@pytest.mark.long
@pytest.mark.parametrize("settings", [{"encoder.name": "double"}, {"gating.name": "none"}, {"norm.name": "shared"}])
def test_every_kind_of_network_is_loaded_again(tmp_path: Path, settings: dict[str, str]) -> None:
    trained = ssl_dc.train({**SHORT, **settings}, output=tmp_path / "run")
    assert_same(ssl_dc.load(tmp_path / "run"), trained.model)


def test_nothing_in_a_run_folder_is_a_pickle(finished_run: ssl_dc.Run) -> None:
    files = [path for path in finished_run.folder.rglob("*") if path.is_file()]
    assert len(files) >= 7
    for path in files:
        assert path.suffix in {".json", ".jsonl", ".safetensors"}, path
        content = path.read_bytes()
        assert not content.startswith(PICKLES), path
        if path.suffix == ".json":
            json.loads(content)
        elif path.suffix == ".safetensors":
            load_file(path)


def test_a_run_that_has_not_ended_has_no_model_and_says_how_to_go_on(copied_run: Path) -> None:
    (copied_run / "model.safetensors").unlink()
    with pytest.raises(RunError, match=r"its training has ended, and the file was removed.*--resume"):
        ssl_dc.load(copied_run)
    (copied_run / "result.json").unlink()
    with pytest.raises(RunError, match=r"no model\.safetensors: its training has not ended.*--resume"):
        ssl_dc.load(copied_run)


@pytest.mark.long
def test_damaged_weights_and_results_are_written_again_as_the_message_says(copied_run: Path) -> None:
    weights, result = copied_run / "model.safetensors", copied_run / "result.json"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1])
    result.write_text(json.dumps({**json.loads(result.read_text()), "routes": 3}))
    with pytest.raises(RunError, match=r"not a whole safetensors file.*writes them again: ssl-dc train --resume"):
        ssl_dc.load(copied_run)
    assert f"ssl-dc train --resume {copied_run}" in recorded_runs(copied_run)[0].damaged_result
    ssl_dc.resume(copied_run)
    assert weights.read_bytes() == whole
    assert recorded_runs(copied_run)[0].damaged_result == ""
    shutil.rmtree(copied_run / "checkpoints")
    weights.write_bytes(whole[:-1])
    with pytest.raises(RunError, match="no resume point, so only another copy"):
        ssl_dc.load(copied_run)


def rename(tensors: dict[str, torch.Tensor], name: str) -> None:
    tensors["module." + name] = tensors.pop(name)


def drop(tensors: dict[str, torch.Tensor], name: str) -> None:
    del tensors[name]


def widen(tensors: dict[str, torch.Tensor], name: str) -> None:
    tensors[name] = torch.zeros(8, 3, 3, 3)


def halve(tensors: dict[str, torch.Tensor], name: str) -> None:
    tensors[name] = tensors[name].half()


def add(tensors: dict[str, torch.Tensor], name: str) -> None:
    tensors["fc.weight"] = torch.zeros(2, 5)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (rename, ["missing both.conv1.weight (4, 3, 3, 3)", "unknown module.both.conv1.weight (4, 3, 3, 3)"]),
        (drop, ["missing both.conv1.weight (4, 3, 3, 3)"]),
        (widen, ["both.conv1.weight is (8, 3, 3, 3)", "(4, 3, 3, 3)"]),
        (halve, ["both.conv1.weight", "float16", "float32"]),
        (add, ["unknown fc.weight (2, 5)"]),
    ],
)
def test_other_weights_than_the_networks_are_refused_by_name_and_shape(
    copied_run: Path, change: Callable[[dict[str, torch.Tensor], str], None], said: list[str]
) -> None:
    tensors = load_file(copied_run / "model.safetensors")
    change(tensors, "both.conv1.weight")
    save_file(tensors, copied_run / "model.safetensors")
    with pytest.raises(RunError) as caught:
        ssl_dc.load(copied_run)
    assert "model.safetensors" in str(caught.value)
    for words in said:
        assert words in str(caught.value)


def test_many_wrong_weights_are_not_all_listed(copied_run: Path) -> None:
    save_file({"fc.weight": torch.zeros(1)}, copied_run / "model.safetensors")
    with pytest.raises(RunError, match=r"and \d+ more") as caught:
        ssl_dc.load(copied_run)
    assert len(str(caught.value).splitlines()) == 6
    assert str(caught.value).endswith("The file is of another kind of network: no name fits.")


def test_weights_of_another_width_name_the_width(copied_run: Path) -> None:
    config = json.loads((copied_run / "config.json").read_text())
    config["backbone"]["width"] *= 2
    (copied_run / "config.json").write_text(json.dumps(config))
    with pytest.raises(
        RunError, match=r"both.conv1.weight has 4 output channels in the file, and 8 by config.json"
    ) as caught:
        ssl_dc.load(copied_run)
    assert len(str(caught.value).splitlines()) == 6


@pytest.mark.parametrize("folder", [None, 3, b"runs"])
def test_a_folder_that_is_no_path_is_told_what_is_taken(folder: Any) -> None:
    with pytest.raises(TypeError, match="load takes a run's folder, or owner/name of a model on the Hub"):
        ssl_dc.load(folder)


def test_an_empty_text_is_told_what_is_taken() -> None:
    with pytest.raises(ConfigError, match="load takes a run's folder, or owner/name of a model on the Hub, not an empty"):
        ssl_dc.load("")


@pytest.mark.parametrize("size", [0, 5, 100, -1])
def test_a_truncated_file_of_weights_is_refused(copied_run: Path, size: int) -> None:
    path = copied_run / "model.safetensors"
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(RunError, match=r"model\.safetensors is not a whole safetensors file"):
        ssl_dc.load(copied_run)


def test_a_pickle_in_the_place_of_the_weights_is_not_opened(copied_run: Path, tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return Path.mkdir, (tmp_path / "made",)  # type: ignore[return-value]

    path = copied_run / "model.safetensors"
    for zipped in (True, False):
        torch.save(Evil(), path, _use_new_zipfile_serialization=zipped)
        with pytest.raises(RunError) as caught:
            ssl_dc.load(copied_run)
        said = f"{path} is a pickle, as torch.save writes it, and no safetensors file. A pickle can run code"
        assert str(caught.value).startswith(said)
        assert "Allowed is a safetensors file" in str(caught.value)
    assert not (tmp_path / "made").exists()


def test_strange_calls_of_a_model_are_told_what_is_taken(finished_run: ssl_dc.Run, tmp_path: Path) -> None:
    model = ssl_dc.load(finished_run.folder)
    images = torch.zeros(2, 3, 8, 8)
    with pytest.raises(DataError, match=r"it is a folder; model\.features takes folders"):
        model.transform(str(tmp_path))
    for route in (None, 0.3):
        with pytest.raises(TypeError, match=r"a route is a ssl_dc.Route, .* 'dense', 'gated'"):
            model.features(images, route)  # type: ignore[arg-type]
    for budget in (True, "a"):
        with pytest.raises(TypeError, match="a budget is a number"):
            model.at_budget(budget)  # type: ignore[arg-type]
    for network in (model.dense, model.gated, model.compile_gated(backend="torch")):
        with pytest.raises(TypeError, match="not a sparse tensor"):
            network(images.to_sparse())
        with pytest.raises(ValueError, match="on meta"):
            network(images.to("meta"))
    with pytest.raises(ConfigError, match="save takes a folder that does not exist yet"):
        ssl_dc.save(model, finished_run.folder)


def test_a_training_takes_the_path_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("budget: 7\n")
    with pytest.raises(ConfigError, match=r"c\.yaml:1: budget\.target = 7"):
        ssl_dc.train(str(tmp_path / "c.yaml"), output=tmp_path / "run")
    with pytest.raises(TypeError, match=r"settings are dotted keys .* not int"):
        ssl_dc.plan(3)  # type: ignore[arg-type]


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    for verb in (ssl_dc.load, ssl_dc.resume, ssl_dc.evaluate):
        with pytest.raises(ConfigError, match="not a run folder"):
            verb(tmp_path)
        with pytest.raises(ConfigError, match="not a run folder"):
            verb(tmp_path / "nothing")


def test_a_config_that_is_not_valid_is_refused_with_its_line(copied_run: Path) -> None:
    config = json.loads((copied_run / "config.json").read_text())
    config["budget"]["target"] = 7
    (copied_run / "config.json").write_text(json.dumps(config, indent=2))
    with pytest.raises(ConfigError, match=r"config\.json:\d+: budget\.target = 7"):
        ssl_dc.load(copied_run)
    (copied_run / "config.json").write_text("{")
    with pytest.raises(ConfigError, match=r"config\.json.*only a copy of config\.json from a backup helps"):
        ssl_dc.load(copied_run)


@pytest.mark.parametrize(
    ("section", "value", "said"),
    [
        ("budget", {"target": None}, r"config\.json:\d+: budget\.target: gating 'dgnet' needs a budget"),
        ("budget", {"target": 1e-6}, r"config\.json: .*1e-06"),
        ("routes", ["gated"], r"config\.json:\d+: "),
        ("training", {"batch_size": 7, "accumulation": 2}, r"config\.json:\d+: "),
    ],
)
def test_what_the_whole_config_lacks_is_told_with_its_file(copied_run: Path, section: str, value: Any, said: str) -> None:
    config = json.loads((copied_run / "config.json").read_text())
    config[section] = {**config[section], **value} if isinstance(value, dict) else value
    (copied_run / "config.json").write_text(json.dumps(config, indent=2))
    with pytest.raises(ConfigError, match=said):
        ssl_dc.load(copied_run)


def test_a_folder_that_is_there_is_not_overwritten_unless_it_is_empty(finished_run: ssl_dc.Run, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is there already"):
        ssl_dc.train(SHORT, output=finished_run.folder)
    config = resolve().config
    (tmp_path / "empty").mkdir()
    assert RunFolder.create(tmp_path / "empty", config).config() == config
    with pytest.raises(ConfigError, match="is there already"):
        RunFolder.create(tmp_path / "empty", config)


def test_a_wrong_call_of_train_makes_no_folder(tmp_path: Path) -> None:
    for settings in (
        {"budget.target": 7},
        {"budget.target": 1e-6},
        {"data.limit": 20, "training.batch_size": 32},
        {"lr": 1},
    ):
        with pytest.raises(ConfigError):
            ssl_dc.train({**SHORT, **settings}, output=tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


def test_the_environment_of_a_run_is_recorded(finished_run: ssl_dc.Run) -> None:
    environment = json.loads((finished_run.folder / "environment.json").read_text())
    assert environment["versions"]["torch"] == metadata.version("torch")
    assert set(environment) >= {"python", "platform", "device", "threads", "git_commit"}
    assert environment["threads"] == torch.get_num_threads()


def test_an_unknown_protocol_is_refused(finished_run: ssl_dc.Run) -> None:
    with pytest.raises(ConfigError, match="'pca'"):
        ssl_dc.evaluate(finished_run.folder, "pca")  # type: ignore[arg-type]


def test_a_config_that_lacks_a_section_is_not_filled_from_defaults(copied_run: Path) -> None:
    config = json.loads((copied_run / "config.json").read_text())
    del config["backbone"]
    (copied_run / "config.json").write_text(json.dumps(config))
    with pytest.raises(ConfigError, match="lacks: backbone"):
        ssl_dc.load(copied_run)


def test_what_a_kill_left_beside_kept_models_is_removed_too(copied_run: Path) -> None:
    left = [
        copied_run / place / ".model.safetensors.0123abcd.partial" for place in ("best", "earlier/2-epochs", "checkpoints")
    ]
    whole = copied_run / "best" / "model.safetensors"
    for path in (*left, whole):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"half")
    with RunFolder(copied_run).held():
        assert not any(path.exists() for path in left)
        assert whole.exists()
