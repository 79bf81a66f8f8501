"""ONNX files in int8: onnxruntime's static quantisation, its ranges calibrated on real images.

Weights are int8 with a scale for each output channel, activations are uint8 with a scale for each tensor. Additions and the
last mean stay in float32 where onnxruntime finds no int8 operation. A processor without int8 dot products (AVX-512 VNNI,
AVX-VNNI, Arm's dot product) may run such a file slower than float32. An x86 processor without them needs the session option
``session.x64quantprecision`` to run it correctly (see :func:`ssl_dc.export.onnx_files.session_of`).
"""

from __future__ import annotations

import contextlib
import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from ssl_dc.errors import ConfigError, RunError

BATCH = 32
"""Images at a time while ranges are measured."""


def int8_onnx_bytes(content: bytes, images: Tensor) -> bytes:
    """The content of an ONNX file in int8.

    Args:
        content: The file in float32, made by :func:`ssl_dc.export.onnx_files.onnx_bytes`, with the input ``images``.
        images: (n, 3, H, H) float32, normalised: training images, on which the range of each activation is measured.

    Raises:
        ConfigError: If onnx or onnxruntime is not installed.
        RunError: If the network cannot be quantised.
    """
    try:
        import onnx
        from onnxruntime import quantization
    except ImportError as error:
        raise ConfigError(f"int8 needs {error.name}, which is not installed: pip install 'ssl-dc[onnx]'") from None
    proto = onnx.load_from_string(content)
    described = {entry.key: entry.value for entry in proto.metadata_props}
    with tempfile.TemporaryDirectory() as folder, _quietly():
        path = Path(folder, "int8.onnx")
        try:
            quantization.quantize_static(
                proto,
                path,
                _reader(quantization.CalibrationDataReader, images),
                quant_format=quantization.QuantFormat.QDQ,
                per_channel=True,
                activation_type=quantization.QuantType.QUInt8,
                weight_type=quantization.QuantType.QInt8,
                calibrate_method=quantization.CalibrationMethod.MinMax,
            )
        except Exception as error:  # onnxruntime's own errors have many types
            first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise RunError(f"this network cannot be quantised to int8: {first}") from error
        made = onnx.load(path)
    del made.metadata_props[:]
    for key, value in described.items():
        made.metadata_props.add(key=key, value=value)
    quantised: bytes = made.SerializeToString()
    return quantised


def _reader(base: type[Any], images: Tensor) -> Any:
    """What onnxruntime takes calibration images from."""
    batches: Iterator[np.ndarray[Any, Any]] = iter([batch.numpy() for batch in images.split(BATCH)])

    class Reader(base):  # type: ignore[misc]  # the base is only there if onnxruntime is installed
        def get_next(self) -> dict[str, Any] | None:
            batch = next(batches, None)
            return None if batch is None else {"images": batch}

    return Reader()


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Silence the advice to preprocess the file: ours come from torch's exporter, which leaves nothing to fold."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(level)
