"""Exported files run without us, and give what we give."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
import torch
import torchvision
from safetensors.torch import load_file
from torch import nn

import ssl_dc
from ssl_dc.config import resolve, uniform_layer
from ssl_dc.errors import ConfigError
from ssl_dc.export.exported_file import FORMATS, export
from ssl_dc.export.networks import GatedNetwork, dense_network
from ssl_dc.routes import Route
from tests.compiled.test_executor import random_encoder


def model_of(**settings: object) -> ssl_dc.Model:
    given = {"data.name": "digits", "backbone.width": 8, "budget.target": 0.9} | settings
    return ssl_dc.Model(resolve([uniform_layer(given, "test")]).config, random_encoder(**settings))


def assert_close(one: torch.Tensor, other: torch.Tensor) -> None:
    assert float((one - other).abs().max() / other.abs().max()) < 1e-4


@pytest.mark.parametrize("gating", ["dgnet", "convnet_aig"])
def test_onnx_files_run_in_onnxruntime(gating: str, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    model = model_of(**{"gating.name": gating})
    size = model.config.data.image_size
    for batch in (1, 5):
        images = torch.randn(batch, 3, size, size)
        for route in Route.BOTH:
            path = tmp_path / f"{route}.onnx"
            if not path.exists():
                export(model, route, "onnx", path)
            session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
            names = [output.name for output in session.get_outputs()]
            outs = dict(zip(names, map(torch.from_numpy, session.run(None, {"images": images.numpy()})), strict=True))
            if not route.gated:
                assert names == ["features"]
                assert_close(outs["features"], model.dense(images))
            else:
                gated = model.gated(images)
                assert names == ["features", *(f"mask.{site}" for site in gated.masks)]
                assert_close(outs["features"], gated.features)
                assert all(torch.equal(outs[f"mask.{site}"], mask) for site, mask in gated.masks.items())


def test_torch_export_files_run_in_torch(tmp_path: Path) -> None:
    model = model_of()
    images = torch.randn(3, 3, model.config.data.image_size, model.config.data.image_size)
    for route in Route.BOTH:
        export(model, route, "torch", tmp_path / f"{route}.pt2")
        network = torch.export.load(io.BytesIO((tmp_path / f"{route}.pt2").read_bytes())).module()
        if not route.gated:
            assert_close(network(images), model.dense(images))
        else:
            features, *masks = network(images)
            gated = model.gated(images)
            assert_close(features, gated.features)
            assert all(torch.equal(one, other) for one, other in zip(masks, gated.masks.values(), strict=True))


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
    assert set(FORMATS.values()) == {".onnx", ".pt2", ".safetensors"}
