"""Networks for OpenVINO: float32, bf16, and int8 by NNCF, its ranges calibrated on real images."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from typing import Any, Literal

import torch
from torch import Tensor

from ssl_dc.errors import ConfigError

Hint = Literal["f32", "bf16"]
"""The precision in which OpenVINO may compute what is float32 in the network."""


def openvino_network(content: bytes) -> Any:
    """An ``openvino.Model`` of an ONNX file.

    Raises:
        ConfigError: If OpenVINO is not installed.
    """
    return _openvino().Core().read_model(content)


def int8_openvino_network(network: Any, images: Tensor) -> Any:
    """The network in int8: NNCF's post-training quantisation with its defaults for convolutional networks.

    Args:
        network: An ``openvino.Model`` with one input, for batches of any size.
        images: (n, 3, H, H) float32, normalised: training images, on which the range of each activation is measured.

    Raises:
        ConfigError: If NNCF is not installed.
    """
    os.environ.setdefault("NNCF_CI", "1")  # else it may send to its makers that it is used
    with _quietly():
        try:
            import nncf
        except ImportError as error:
            raise ConfigError(f"{error.name} is not installed: pip install 'ssl-dc[deploy]'") from None
        return nncf.quantize(network, nncf.Dataset([image[None].numpy() for image in images]), subset_size=len(images))


def openvino_run(network: Any, threads: int, hint: Hint) -> Callable[[Tensor], Tensor]:
    """A function from images (N, 3, H, H) to features (N, feature_dim).

    Args:
        network: An ``openvino.Model``.
        threads: CPU threads.
        hint: ``bf16`` where the processor has instructions for it.

    Raises:
        ConfigError: If the processor has no bf16, and it is asked for.
    """
    core = _openvino().Core()
    if hint == "bf16" and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        raise ConfigError("this processor has no instructions for bf16")
    compiled = core.compile_model(
        network,
        "CPU",
        {
            "INFERENCE_NUM_THREADS": str(threads),
            "NUM_STREAMS": "1",
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": hint,
        },
    )
    request = compiled.create_infer_request()

    def run(images: Tensor) -> Tensor:
        return torch.from_numpy(request.infer({0: images.numpy()})[0].copy())

    return run


def _openvino() -> Any:
    try:
        import openvino
    except ImportError:
        raise ConfigError("OpenVINO is not installed: pip install 'ssl-dc[deploy]'") from None
    return openvino


@contextmanager
def _quietly() -> Iterator[None]:
    """Silence NNCF, which writes its progress to standard output."""
    logger = logging.getLogger("nncf")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with redirect_stdout(StringIO()):
            yield
    finally:
        logger.setLevel(level)
