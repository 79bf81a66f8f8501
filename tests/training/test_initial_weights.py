"""An encoder that starts from weights of a run, or of a file of torchvision's or timm's names."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import ssl_dc
from helpers.command_line import call, message
from helpers.forked import run_two_forked
from helpers.settings import TINY, config_of
from helpers.training import Told, assert_same_files, learner_at
from ssl_dc.assemble import build_encoder
from ssl_dc.encoders.base import Encoder
from ssl_dc.errors import ConfigError, RunError
from ssl_dc.model import Model
from ssl_dc.routes import Route
from ssl_dc.training.initial_weights import initial_weights

AS_TORCHVISION = {**TINY, "backbone.width": 64, "backbone.stem": "imagenet"}


def encoder_of(settings: dict[str, Any]) -> Encoder:
    return build_encoder(config_of(settings))[0]


def renewed(network: nn.Module) -> nn.Module:
    """The network with norms that show in what it computes."""
    generator = torch.Generator().manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight.data, module.bias.data, module.running_mean):
                assert tensor is not None
                tensor.copy_(0.2 * torch.randn(tensor.shape, generator=generator) + 0.5)
    return network


@pytest.fixture(scope="module")
def resnet18() -> nn.Module:
    """Torchvision's ResNet-18."""
    torch.manual_seed(0)
    return renewed(torchvision.models.resnet18())


@pytest.fixture(scope="module")
def file(resnet18: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its state_dict, as torchvision publishes it."""
    path = tmp_path_factory.mktemp("weights") / "resnet18.pth"
    torch.save(resnet18.state_dict(), path)
    return path


def assert_same_features(encoder: Encoder, network: nn.Module) -> None:
    network.fc = nn.Identity()
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = network.eval()(images)
        found = encoder.eval()(images, Route.DENSE).features
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("depth", [18, 34, 50])
@pytest.mark.parametrize("norm", ["separate", "shared"])
def test_the_dense_route_computes_what_torchvisions_network_does(depth: int, norm: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = renewed(getattr(torchvision.models, f"resnet{depth}")())
    torch.save(network.state_dict(), tmp_path / "it.pth")
    encoder = encoder_of({**AS_TORCHVISION, "backbone.name": f"resnet{depth}", "norm.name": norm})
    initial = initial_weights(tmp_path / "it.pth", encoder)
    initial.load_into(encoder)
    assert_same_features(encoder, network)
    assert initial.unused == ["fc.bias", "fc.weight"]
    assert initial.other_shapes == []
    assert initial.missing
    assert all(".gate." in name for name in initial.missing)


def test_both_routes_and_both_backbones_start_from_them(resnet18: nn.Module, file: Path) -> None:
    encoder = encoder_of({**AS_TORCHVISION, "encoder.name": "double"})
    initial_weights(file, encoder).load_into(encoder)
    state, theirs = encoder.state_dict(), resnet18.state_dict()
    for backbone in ("gated", "dense"):
        for route in ("gated", "dense"):
            norm = state[f"{backbone}.stages.layer2.0.norm1.{route}.running_mean"]
            assert torch.equal(norm, theirs["layer2.0.bn1.running_mean"])
        assert torch.equal(state[f"{backbone}.conv1.weight"], theirs["conv1.weight"])


def test_timms_names_are_torchvisions(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm", reason="timm is not installed")
    network = renewed(timm.create_model("resnet18"))
    save_file(network.state_dict(), tmp_path / "timm.safetensors")
    encoder = encoder_of(AS_TORCHVISION)
    initial_weights(tmp_path / "timm.safetensors", encoder).load_into(encoder)
    assert_same_features(encoder, network)


@pytest.mark.parametrize("kind", ["safetensors", "lightning", "moco", "nested", "half", "legacy"])
def test_usual_files_are_read(resnet18: nn.Module, kind: str, tmp_path: Path) -> None:
    path, state = tmp_path / "file.bin", resnet18.state_dict()
    whole = {f"module.encoder_q.{name}": tensor for name, tensor in state.items()}
    other = {f"module.encoder_k.{name}": torch.zeros_like(tensor) for name, tensor in state.items()}
    if kind == "safetensors":
        save_file(state, path)
    elif kind == "lightning":
        heads = {"projector.0.weight": torch.zeros(3, 3)}
        torch.save({"epoch": 3, "state_dict": {f"backbone.{name}": t for name, t in state.items()} | heads}, path)
    elif kind == "moco":
        torch.save({"state_dict": {**whole, **other}, "arch": "resnet18"}, path)
    elif kind == "nested":
        torch.save({"args": {"lr": 0.1}, "model": {"state_dict": state}}, path)
    elif kind == "half":
        torch.save({name: t.double() if t.is_floating_point() else t for name, t in state.items()}, path)
    else:
        counters = [name for name in state if name.endswith("num_batches_tracked")]
        torch.save(
            {name: t for name, t in state.items() if name not in counters}, path, _use_new_zipfile_serialization=False
        )
    encoder = encoder_of(AS_TORCHVISION)
    initial = initial_weights(path, encoder)
    assert len([name for name in initial.tensors if not name.endswith("num_batches_tracked")]) == 100 + 64, (
        "norms of blocks have two routes"
    )
    assert torch.equal(initial.tensors["both.conv1.weight"], state["conv1.weight"])
    assert all(".gate." in name for name in initial.missing)


def test_another_stem_is_left_out_and_listed(file: Path) -> None:
    initial = initial_weights(file, encoder_of({**AS_TORCHVISION, "backbone.stem": "cifar"}))
    assert initial.other_shapes == ["both.conv1.weight: (64, 3, 7, 7) there, (64, 3, 3, 3) here"]
    assert "both.conv1.weight" not in initial.tensors
    assert "of another shape there: 1 (both.conv1.weight: (64, 3, 7, 7) there" in str(initial)
    assert "in it and not used: 2 (fc.bias, fc.weight)" in str(initial)


# a training


@pytest.fixture(scope="module")
def run(run_of_eight_steps: Path) -> Path:
    """A run of two epochs."""
    return run_of_eight_steps


@pytest.mark.long
def test_a_run_starts_from_another_run(run: Path, tmp_path: Path) -> None:
    result = call("train", *(f"--{key}={value}" for key, value in TINY.items()), "--init", run, "--output", tmp_path / "b")
    assert result.exit_code == 0, result.stderr
    weights = run / "model.safetensors"
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    assert f"the encoder starts from {weights} (SHA-256 {digest[:12]})" in result.stderr
    assert "initial %" in result.stdout
    record = json.loads((tmp_path / "b" / "init.json").read_text())
    assert (record["path"], record["sha256"]) == (str(weights), digest)
    assert record["missing"] == record["unused"] == record["other_shapes"] == []
    assert json.loads((tmp_path / "b" / "config.json").read_text())["training"]["init"] == str(run)
    before, now = (json.loads((folder / "result.json").read_text()) for folder in (run, tmp_path / "b"))
    assert now["started_from"] == "initial"
    assert now["routes"]["dense"]["knn1_untrained"] == before["routes"]["dense"]["knn1"], "it starts where that ended"


@pytest.mark.long
def test_the_first_step_sees_the_weights(run: Path, tmp_path: Path) -> None:
    settings = {**TINY, "optimizer.lr": 1e-12, "training.init": str(run), "training.epochs": 1}
    started = ssl_dc.train(settings, output=tmp_path / "run").folder
    for name, tensor in load_file(run / "model.safetensors").items():
        if name.endswith(("weight", "bias")):
            torch.testing.assert_close(learner_at(started, 4)[f"encoder.{name}"], tensor, rtol=0, atol=1e-6)


@pytest.mark.parametrize("norm", ["shared", "separate"])
def test_a_run_of_other_norms_starts_from_it(run: Path, norm: str) -> None:
    encoder = encoder_of({**TINY, "norm.name": norm, "encoder.name": "double"})
    initial = initial_weights(run, encoder)
    initial.load_into(encoder)
    theirs = load_file(run / "model.safetensors")
    dense = encoder.backbone(Route.DENSE).state_dict()
    of_route = "dense" if norm == "separate" else "both"
    for name in ("weight", "running_mean"):
        expected = theirs[f"both.stages.layer1.0.norm1.dense.{name}"]
        assert torch.equal(dense[f"stages.layer1.0.norm1.{of_route}.{name}"], expected)
    assert all(".gate." in name for name in initial.missing)


INIT_EPOCHS = {**TINY, "training.epochs": 3, "training.keep_checkpoints": 50}


@pytest.fixture(scope="module")
def started(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("started")
    shutil.copytree(run, folder / "source")
    settings = {**INIT_EPOCHS, "training.init": str(folder / "source")}
    whole = ssl_dc.train(settings, output=folder / "run").folder
    shutil.rmtree(folder / "source")
    return whole


@pytest.mark.long
@pytest.mark.parametrize("step", [0, 4])
def test_it_goes_on_without_the_file_it_started_from(started: Path, step: int, tmp_path: Path) -> None:
    folder = shutil.copytree(started, tmp_path / "run")
    for name in ("model.safetensors", "result.json"):
        (folder / name).unlink()
    for point in (folder / "checkpoints").iterdir():
        if int(point.name.removeprefix("step-")) > step:
            shutil.rmtree(point)
    told = Told()
    ssl_dc.resume(folder, watchers=[told])
    assert ("start", step) in told.events
    assert_same_files(folder, started)
    assert any("starts from" in text for text in told.messages) == (step == 0)


@pytest.mark.long
def test_a_run_that_was_killed_before_it_kept_the_weights_reads_them_again(run: Path, tmp_path: Path) -> None:
    settings = {**TINY, "training.init": str(run)}
    whole = ssl_dc.train(settings, output=tmp_path / "whole").folder
    folder = shutil.copytree(whole, tmp_path / "run")
    for name in ("model.safetensors", "result.json", "metrics.jsonl", "init.safetensors", "init.json", "data.json"):
        (folder / name).unlink()
    shutil.rmtree(folder / "checkpoints")
    ssl_dc.resume(folder)
    assert_same_files(folder, whole, "model.safetensors", "result.json", "metrics.jsonl", "init.json", "data.json")
    assert_same_files(folder, whole, "init.safetensors")


@pytest.mark.long
def test_it_can_be_trained_for_longer(started: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(started, tmp_path / "run")
    ssl_dc.resume(folder, epochs=4)
    assert json.loads((folder / "result.json").read_text())["started_from"] == "initial"


TWO_PROCESSES = """
import json, sys
import ssl_dc

ssl_dc.train(json.loads(sys.argv[1]), output=sys.argv[2])
"""


@pytest.mark.slow
def test_two_processes_start_from_the_same_weights(run: Path, tmp_path: Path) -> None:
    settings = {**TINY, "optimizer.lr": 1e-12, "training.init": str(run), "training.epochs": 1}
    launched = run_two_forked(TWO_PROCESSES, json.dumps(settings), tmp_path / "run")
    assert launched.returncode == 0, launched.stderr
    for name, tensor in load_file(run / "model.safetensors").items():
        if name.endswith(("weight", "bias")):
            torch.testing.assert_close(learner_at(tmp_path / "run", 4)[f"encoder.{name}"], tensor, rtol=0, atol=1e-6)


# what is refused


class Evil:
    """Makes a folder where it is unpickled."""

    def __init__(self, touched: Path) -> None:
        self.touched = touched

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.touched),)


def saved(content: Any, path: Path, **options: Any) -> Path:
    torch.save(content, path, **options)
    return path


@pytest.mark.parametrize("new_format", [True, False])
def test_what_could_execute_is_never_loaded(tmp_path: Path, new_format: bool) -> None:
    touched = tmp_path / "touched"
    content = {"conv1.weight": torch.zeros(3), "more": Evil(touched)}
    path = saved(content, tmp_path / "evil.pth", _use_new_zipfile_serialization=new_format)
    with pytest.raises(ConfigError, match=r"could execute code and is not loaded: save its state_dict"):
        initial_weights(path, encoder_of(TINY))
    assert not touched.exists()
    torch.load(path, weights_only=False)
    assert touched.exists(), "the file does execute where it is unpickled"


def compressed(path: Path) -> Path:
    stream = io.BytesIO()
    torch.save({"conv1.weight": torch.zeros(1000)}, stream)
    with zipfile.ZipFile(stream) as archive, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as small:
        for entry in archive.infolist():
            small.writestr(entry.filename, archive.read(entry))
    return path


def not_finite(path: Path) -> Path:
    state: dict[str, Tensor] = encoder_of(TINY).state_dict()
    state["both.conv1.weight"][0, 0, 0, 0] = float("nan")
    save_file(state, path)
    return path


def fifo(path: Path) -> Path:
    os.mkfifo(path)
    return path


REFUSED: dict[str, tuple[Any, str]] = {
    "nothing fits": (lambda path: saved({"a": torch.zeros(2)}, path), r"nothing in .* fits the encoder, which has both\."),
    "another width": (
        lambda path: saved(encoder_of({**TINY, "backbone.width": 8}).state_dict(), path),
        "nothing in .* fits",
    ),
    "a whole model": (lambda path: saved(nn.Linear(2, 2), path), "save its state_dict"),
    "no tensors": (lambda path: saved({"epoch": 3}, path), "holds no tensors by name"),
    "a list": (lambda path: saved([torch.zeros(2)], path), "holds no tensors by name"),
    "rubbish": (lambda path: path.write_bytes(b"rubbish" * 99) and path, "is neither a safetensors file nor"),
    "empty": (lambda path: path.write_bytes(b"") or path, "is neither a safetensors file nor"),
    "compressed": (compressed, "is a compressed archive"),
    "not finite": (not_finite, r"not finite, for both\.conv1\.weight"),
    "missing": (lambda path: path, "there is no such file"),
    "a pipe": (fifo, "cannot read .*: not a regular file"),
    "no run": (lambda path: path.mkdir() or path, "is not a run folder"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_refused(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make, says = REFUSED[kind]
    path = make(tmp_path / "weights")
    with pytest.raises(ConfigError, match=says):
        initial_weights(path, encoder_of(TINY))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    said = message("train", *(f"--{key}={value}" for key, value in TINY.items()), "--init", path, "--output", "run")
    assert "\x1b" not in said


def test_a_run_of_another_width_says_which_network_it_is(run: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"its network is --backbone\.name resnet18 --backbone\.width 4 --backbone\.stem cifar"
    ):
        initial_weights(run, encoder_of({**TINY, "backbone.width": 8}))


def test_a_plan_says_what_a_training_starts_from(run: Path) -> None:
    plan = ssl_dc.plan({**TINY, "training.init": str(run), "backbone.stem": "imagenet"})
    assert plan.weights.startswith(f"from {run / 'model.safetensors'}: ")
    assert plan.weights.endswith("; 1 others, gates aside, are drawn")


def test_a_run_that_has_not_ended_is_refused(run: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(run, tmp_path / "run")
    (folder / "model.safetensors").unlink()
    with pytest.raises(ConfigError, match="has ended, and the file was removed"):
        initial_weights(folder, encoder_of(TINY))


@pytest.mark.parametrize("damage", ["record", "weights", "another network"])
def test_damaged_files_of_the_start_are_one_message(started: Path, damage: str, tmp_path: Path) -> None:
    folder = shutil.copytree(started, tmp_path / "run")
    if damage == "record":
        (folder / "init.json").write_text("[")
    elif damage == "weights":
        (folder / "init.safetensors").write_bytes(b"rubbish")
    else:
        save_file({"both.conv1.weight": torch.zeros(3)}, folder / "init.safetensors")
    with pytest.raises(RunError, match=r"init\.(json|safetensors)"):
        ssl_dc.resume(folder)


def test_thresholds_of_gates_are_not_taken(run: Path) -> None:
    encoder = Model.untrained(config_of(TINY)).encoder
    initial = initial_weights(run, encoder)
    assert not [name for name in initial.tensors if name.endswith((".thresholds", ".budgets"))]
    assert not [name for name in initial.missing if name.endswith((".thresholds", ".budgets"))]
