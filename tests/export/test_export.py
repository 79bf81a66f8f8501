"""Exported files run without us, and give what we give."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn

import ssl_dc
from ssl_dc.config import resolve, uniform_layer
from ssl_dc.errors import ConfigError
from ssl_dc.export.exported_file import FORMATS, OF_OTHER_LIBRARIES, ExportedFile, FileFormat, export
from ssl_dc.export.networks import GatedNetwork, dense_network
from ssl_dc.routes import Route
from tests.helpers.random_networks import random_encoder


def model_of(**settings: object) -> ssl_dc.Model:
    given = {"data.name": "digits", "backbone.width": 8, "budget.target": 0.9} | settings
    return ssl_dc.Model(resolve([uniform_layer(given, "test")]).config, random_encoder(**settings))


PIXELS = {"data.mean": (0.1, 0.2, 0.3), "data.std": (0.4, 0.5, 0.6)}


class Files(NamedTuple):
    """A model and its files.

    Attributes:
        model: The model.
        file: Writes the file of a route in a format, the first time that it is asked for.
    """

    model: ssl_dc.Model
    file: Callable[[Route, FileFormat], ExportedFile]


def files_of(model: ssl_dc.Model, folder: Path) -> Files:
    return Files(model, cache(lambda route, kind: export(model, route, kind, folder / f"{route}{FORMATS[kind]}")))


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """A model with gates for channels, and files that all tests share: to trace and convert a network takes seconds."""
    return files_of(model_of(**PIXELS), tmp_path_factory.mktemp("exported"))


def assert_close(one: torch.Tensor, other: torch.Tensor) -> None:
    assert float(((one - other).abs().max() / other.abs().max()).detach()) < 1e-4


@pytest.mark.parametrize("gating", ["dgnet", "convnet_aig", pytest.param("dgnet_dual", marks=pytest.mark.slow)])
def test_onnx_files_run_in_onnxruntime(gating: str, exported: Files, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    model, file = exported if gating == "dgnet" else files_of(model_of(**{"gating.name": gating}), tmp_path)
    size = model.config.data.image_size
    for batch in (1, 5):
        images = torch.randn(batch, 3, size, size)
        for route in Route.BOTH:
            path = file(route, "onnx").path
            session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
            names = [output.name for output in session.get_outputs()]
            outs = dict(zip(names, map(torch.from_numpy, session.run(None, {"images": images.numpy()})), strict=True))
            if not route.gated:
                assert names == ["features"]
                assert_close(outs["features"], model.dense(images))
            else:
                assert (described(path)["route"], described(path)["budget"]) == ("gated", 0.9)
                gated = model.gated(images)
                assert names == ["features", *(f"mask.{site}" for site in gated.masks)]
                assert_close(outs["features"], gated.features)
                assert all(torch.equal(outs[f"mask.{site}"], mask) for site, mask in gated.masks.items())


@pytest.mark.long
def test_torch_export_files_run_in_torch(exported: Files) -> None:
    model, file = exported
    images = torch.randn(3, 3, model.config.data.image_size, model.config.data.image_size)
    for route in Route.BOTH:
        network = torch.export.load(io.BytesIO(file(route, "torch").path.read_bytes())).module()
        if not route.gated:
            assert_close(network(images), model.dense(images))
        else:
            features, *masks = network(images)
            gated = model.gated(images)
            assert_close(features, gated.features)
            assert all(torch.equal(one, other) for one, other in zip(masks, gated.masks.values(), strict=True))


def described(path: Path) -> dict[str, object]:
    """What a file says of itself."""
    if path.suffix == ".onnx":
        said = {entry.key: entry.value for entry in pytest.importorskip("onnx").load(path).metadata_props}
    elif path.suffix == ".pt2":
        extra_files = {"ssl_dc.json": ""}
        torch.export.load(path, extra_files=extra_files)
        said = json.loads(extra_files["ssl_dc.json"])
    else:
        with safe_open(path / "model.safetensors" if path.is_dir() else path, "pt") as file:
            said = file.metadata()
        assert said.pop("ssl_dc.sha256")
        assert said.pop("format") == "pt"  # transformers reads no file without it
    return {key.removeprefix("ssl_dc."): json.loads(value) for key, value in said.items()}


@pytest.mark.long
def test_every_file_says_which_images_it_takes(exported: Files, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    known_elsewhere = files_of(model_of(**{"backbone.width": 64, "backbone.stem": "imagenet"}, **PIXELS), tmp_path)
    images = {
        "image_size": exported.model.config.data.image_size,
        "mean": [0.1, 0.2, 0.3],
        "std": [0.4, 0.5, 0.6],
        "resize": "shorter side to image_size, bicubic, antialiased; then the middle square",
    }
    for file_format in FORMATS:
        of = known_elsewhere if file_format in OF_OTHER_LIBRARIES else exported
        file = of.file(Route.DENSE, file_format)
        path = file.path
        assert described(path) == {**images, "route": "dense"}
        files = list(path.iterdir()) if path.is_dir() else [path]
        told = file.as_json()
        assert (told["file"], told["description"]) == (str(path), dict(file.described))
        assert told["bytes"] == sum(one.stat().st_size for one in files) > 0
        (table,) = file.tables()
        assert ("ssl_dc.route", '"dense"') in table.rows
        assert table.note.startswith(f"written: {path} (")
    assert described(exported.file(Route.GATED, "torch").path) == {**images, "route": "gated", "budget": 0.9}


def test_the_reader_of_the_docs_reads_as_the_model_does(exported: Files, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    page = (Path(__file__).parents[2] / "docs" / "export.md").read_text(encoding="utf-8")
    (program,) = re.findall(r"^```python reader\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    assert "ssl_dc" not in re.sub(r'"ssl_dc\.\w+"', "", program)
    model, file = exported
    generator = np.random.default_rng(0)
    for number, shape in enumerate([(40, 70), (97, 33), (8, 8)]):
        picture = Image.fromarray(generator.integers(0, 256, (*shape, 3), dtype=np.uint8)).resize(shape[::-1])
        picture.save(tmp_path / f"{number}.png")
        call = [sys.executable, "-c", program, file(Route.DENSE, "onnx").path, tmp_path / f"{number}.png"]
        done = subprocess.run(call, capture_output=True, text=True, check=True)
        assert_close(torch.tensor(json.loads(done.stdout)), model.dense(model.transform(picture)[None]))


@pytest.mark.parametrize("backbone", ["resnet18", "resnet34", "resnet50"])
@pytest.mark.parametrize("norm", ["separate", "shared"])
def test_torchvision_loads_the_dense_route_strictly(backbone: str, norm: str, tmp_path: Path) -> None:
    settings = {"backbone.name": backbone, "backbone.width": 64, "backbone.stem": "imagenet", "norm.name": norm}
    model = model_of(**settings)
    export(model, Route.DENSE, "torchvision", tmp_path / "dense.safetensors")
    network = getattr(torchvision.models, backbone)()
    network.fc = nn.Identity()
    network.load_state_dict(load_file(tmp_path / "dense.safetensors"), strict=True)
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert_close(network.eval()(images), model.dense(images))


def test_what_torchvision_has_not_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with pytest.raises(ConfigError, match="width 64 and the stem 'imagenet'; this one has width 8"):
        export(model_of(), Route.DENSE, "torchvision", path)
    with pytest.raises(ConfigError, match="no gates"):
        export(model_of(), Route.GATED, "torchvision", path)
    assert not path.exists()


def test_a_run_without_gates_has_no_gated_network(tmp_path: Path) -> None:
    config = resolve([uniform_layer({"data.name": "digits", "gating.name": "none", "backbone.width": 8}, "test")]).config
    with pytest.raises(ConfigError, match="no gated route"):
        export(ssl_dc.Model.untrained(config), Route.GATED, "onnx", tmp_path / "gated.onnx")


def test_networks_as_modules() -> None:
    model = model_of()
    images = torch.randn(2, 3, model.config.data.image_size, model.config.data.image_size)
    with torch.no_grad():
        assert_close(dense_network(model)(images), model.dense(images))
        assert_close(GatedNetwork(model)(images)[0], model.gated(images).features)


def test_every_format_has_an_ending() -> None:
    assert set(FORMATS.values()) == {".onnx", ".pt2", ".safetensors", "-timm"}
