"""Networks in int8: near the float32 ones, described alike, and refused where there is no such file."""

from __future__ import annotations

import sys
from collections.abc import Callable

import onnx
import pytest
import torch
from torch import Tensor, nn

from ssl_dc.errors import ConfigError, RunError
from ssl_dc.export.int8_files import int8_onnx_bytes
from ssl_dc.export.onnx_files import onnx_bytes, session_of
from ssl_dc.export.openvino_networks import int8_openvino_network, openvino_network, openvino_run


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 24, 3, stride=2),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    ).eval()


@pytest.fixture(scope="module")
def content(network: nn.Module) -> bytes:
    return onnx_bytes(network, torch.zeros(2, 3, 12, 12), ["features"], {"ssl_dc.route": '"dense"'})


def images(count: int, seed: int) -> Tensor:
    return torch.randn(count, 3, 12, 12, generator=torch.Generator().manual_seed(seed))


def relative_error(run: Callable[[Tensor], Tensor], network: nn.Module) -> float:
    """Of the features of images that the ranges were not measured on."""
    held_out = images(40, 1)
    with torch.no_grad():
        exact = network(held_out)
    return float((run(held_out) - exact).norm() / exact.norm())


def test_features_in_int8_are_near_those_in_float32(network: nn.Module, content: bytes) -> None:
    quantised = int8_onnx_bytes(content, images(70, 0))
    session = session_of(quantised, 1)

    def run(batch: Tensor) -> Tensor:
        return torch.from_numpy(session.run(None, {"images": batch.numpy()})[0])

    assert 1e-5 < relative_error(run, network) < 0.02
    assert len(run(images(1, 2))) == 1, "batches of any size"


def test_weights_are_stored_in_int8_and_the_description_is_kept(content: bytes) -> None:
    proto = onnx.load_from_string(int8_onnx_bytes(content, images(8, 0)))
    assert {entry.key: entry.value for entry in proto.metadata_props} == {"ssl_dc.route": '"dense"'}
    stored = {tuple(weight.dims): weight.data_type for weight in proto.graph.initializer if len(weight.dims) == 4}
    assert stored == dict.fromkeys([(16, 3, 3, 3), (24, 16, 3, 3)], onnx.TensorProto.INT8)


def test_images_of_another_size_are_one_message(content: bytes) -> None:
    with pytest.raises(RunError, match="cannot be quantised to int8"):
        int8_onnx_bytes(content, torch.randn(4, 3, 8, 8))


def test_without_onnxruntime_the_error_says_what_to_install(content: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ConfigError, match=r"pip install 'ssl-dc\[onnx\]'"):
        int8_onnx_bytes(content, images(4, 0))


def test_openvino_runs_the_network_in_three_precisions(network: nn.Module, content: bytes) -> None:
    pytest.importorskip("nncf", reason="OpenVINO and NNCF (extra deploy) are not installed")
    exact = openvino_network(content)
    assert relative_error(openvino_run(exact, 1, "f32"), network) < 1e-5
    assert 1e-5 < relative_error(openvino_run(int8_openvino_network(exact, images(70, 0)), 1, "f32"), network) < 0.02
    try:
        assert relative_error(openvino_run(exact, 1, "bf16"), network) < 0.02
    except ConfigError as error:
        assert "no instructions for bf16" in str(error)  # noqa: PT017


def test_without_openvino_the_error_says_what_to_install(content: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(ConfigError, match=r"pip install 'ssl-dc\[deploy\]'"):
        openvino_network(content)
