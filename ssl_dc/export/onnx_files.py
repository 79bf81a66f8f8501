"""ONNX: written by torch's exporter, run by onnxruntime."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ssl_dc.errors import ConfigError, RunError


def onnx_bytes(network: nn.Module, example: Tensor, outputs: Sequence[str]) -> bytes:
    """A network as an ONNX file, for batches of any size.

    Args:
        network: Images (N, 3, H, W), the input ``images``, to a tensor or several.
        example: Some images; their height and width are fixed.
        outputs: Names of what it returns.

    Raises:
        ConfigError: If the exporter's packages are not installed.
        RunError: If the network cannot be exported.
    """
    try:
        import onnx  # noqa: F401  # whether they are there
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            f"ONNX needs packages that are not installed ({error.name}): pip install 'ssl-dc[onnx]'"
        ) from None
    two = example[:1].expand(2, -1, -1, -1).contiguous()  # a batch of one would be taken for a constant
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
    content: bytes = program.model_proto.SerializeToString()
    return content


def onnx_session(network: nn.Module, example: Tensor, threads: int) -> Any:
    """An onnxruntime session of a network: ``run(None, {"images": array})``.

    Raises:
        ConfigError: If onnxruntime or the exporter's packages are not installed.
        RunError: If the network cannot be exported.
    """
    return session_of(onnx_bytes(network, example, ["features"]), threads)


def session_of(content: bytes, threads: int) -> Any:
    """An onnxruntime session of an ONNX file's content.

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
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


@contextmanager
def _quietly() -> Iterator[None]:
    """The exporter tells of its progress and of its own deprecations; a user can do nothing about either."""
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
