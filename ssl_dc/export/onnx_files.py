"""ONNX files: torch's exporter writes them, onnxruntime runs them."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ssl_dc.errors import ConfigError, RunError


def check_onnx() -> None:
    """Make sure that ONNX files can be written.

    Raises:
        ConfigError: If the exporter's packages are not installed.
    """
    try:
        import onnx  # noqa: F401  # only to know whether it is there
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            f"ONNX needs packages that are not installed ({error.name}): pip install 'ssl-dc[onnx]'"
        ) from None


def onnx_bytes(
    network: nn.Module, example: Tensor, outputs: Sequence[str], metadata: Mapping[str, str] | None = None
) -> bytes:
    """The content of an ONNX file of a network, for batches of any size. Its input is named ``images``.

    Args:
        network: Takes images (N, 3, H, W) and returns a tensor or several.
        example: Images (N, 3, H, W). The file takes images of this height and width only.
        outputs: Names of the outputs.
        metadata: Becomes the metadata of the model.

    Raises:
        ConfigError: If the exporter's packages are not installed.
        RunError: If the network cannot be exported.
    """
    check_onnx()
    two = example[:1].expand(2, -1, -1, -1).contiguous()  # the exporter takes a batch of one for a constant
    try:
        with _quietly():
            program = torch.onnx.export(
                network.eval(),
                (two,),
                dynamo=True,
                input_names=["images"],
                output_names=list(outputs),
                dynamic_shapes=({0: torch.export.Dim("batch", min=1)},),
                verbose=False,
            )
    except Exception as error:  # the exporter's own errors have many types
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise RunError(f"this network cannot be exported to ONNX: {first}") from error
    if program is None:
        raise RunError("this network cannot be exported to ONNX")
    proto = program.model_proto
    for key, value in (metadata or {}).items():
        proto.metadata_props.add(key=key, value=value)
    content: bytes = proto.SerializeToString()
    return content


def onnx_session(network: nn.Module, example: Tensor, threads: int) -> Any:
    """An onnxruntime session of a network: ``run(None, {"images": array})``.

    Raises:
        ConfigError: If onnxruntime or the exporter's packages are not installed.
        RunError: If the network cannot be exported.
    """
    return session_of(onnx_bytes(network, example, ["features"]), threads)


def session_of(content: bytes, threads: int) -> Any:
    """An onnxruntime session of an ONNX file's content, on the CPU.

    Its int8 sums are exact on every processor. Without int8 dot products (AVX-512 VNNI, AVX-VNNI), onnxruntime adds pairs
    of products in 16 bits, which overflow for large weights; a network in int8 was 6 % off by that. The option
    ``x64quantprecision`` asks for slower, exact operations on such a processor. It changes nothing on others.

    Raises:
        ConfigError: If onnxruntime is not installed.
    """
    try:
        import onnxruntime
    except ImportError:
        raise ConfigError("onnxruntime is not installed: pip install 'ssl-dc[onnx]'") from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.x64quantprecision", "1")
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


@contextmanager
def _quietly() -> Iterator[None]:
    """Silence the exporter, which reports its progress and its own deprecations: a user can do nothing about either."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
