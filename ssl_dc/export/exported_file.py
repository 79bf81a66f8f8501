"""Writes networks as files that run without ssl-dc."""

from __future__ import annotations

import io
import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ssl_dc.atomic_files import write_bytes
from ssl_dc.errors import ConfigError, RunError
from ssl_dc.evaluation.report import Report, ReportTable
from ssl_dc.export.description import PREFIX, description
from ssl_dc.export.int8_files import int8_onnx_bytes
from ssl_dc.export.networks import GatedNetwork, dense_network
from ssl_dc.export.onnx_files import onnx_bytes, session_of
from ssl_dc.model import Model
from ssl_dc.routes import Route
from ssl_dc.tensor_files import write_tensors

FileFormat = Literal["onnx", "torch", "torchvision"]
FORMATS: Mapping[FileFormat, str] = {"onnx": ".onnx", "torch": ".pt2", "torchvision": ".safetensors"}
"""Ending of the files in each format: ONNX, torch.export, a state_dict that torchvision's model of that name loads."""
DESCRIPTION_FILE = "ssl_dc.json"
"""Name of the description among the extra files of a torch.export archive."""


@dataclass(frozen=True)
class ExportedFile(Report):
    """A file that was written.

    Attributes:
        path: The file.
        described: What the file says of itself.
        agreement: Of an int8 file: cosine similarity of its features and those of the float32 network, mean and least over
            held-out images, taken by running the file; None for float32.
    """

    path: Path
    described: Mapping[str, str]
    agreement: tuple[float, float] | None = None

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return self.path.stat().st_size

    def as_json(self) -> dict[str, Any]:
        """The file, its size in bytes, its description and, for int8, how far it agrees with float32."""
        agreement = None if self.agreement is None else dict(zip(("mean", "least"), self.agreement, strict=True))
        return {
            "file": str(self.path),
            "bytes": self.size,
            "description": dict(self.described),
            "cosine_with_float32": agreement,
        }

    def tables(self) -> Sequence[ReportTable]:
        """The description as a table, and the file below it."""
        note = f"written: {self.path} ({self.size / 2**20:.1f} MiB)"
        if self.agreement is not None:
            mean, least = self.agreement
            note += (
                f"\nThe file was run: its features have a cosine similarity of {mean:.4f} with those of the float32 network"
                f" ({least:.4f} at least). ssl-dc bench shows what that does to accuracy."
            )
        return [ReportTable("what the file says of itself", ("key", "value"), list(self.described.items()), note=note)]


def export(model: Model, route: Route, file_format: FileFormat, path: Path) -> ExportedFile:
    """Write one route of a model.

    Args:
        model: On the CPU.
        route: ``dense``: an ordinary network. ``gated``: with its masks, see :class:`GatedNetwork`.
        file_format: One of ``FORMATS``.
        path: The file; it is replaced if it is there.

    Raises:
        ConfigError: If the route does not exist in that format, or packages are missing.
        RunError: If the network cannot be exported, or the file cannot be written.
    """
    if file_format == "torchvision":
        if route.gated:
            raise ConfigError("torchvision's models have no gates: --format torchvision takes --route dense only")
        described = description(model, "dense")
        write_tensors(path, model.encoder.backbone(route).torchvision_state_dict(route), described)
        return ExportedFile(path, described)
    if not route.gated:
        return write_network(dense_network(model), ["features"], description(model, "dense"), file_format, path)
    if not model.has_gates:
        raise ConfigError(f"this run has no gated route: it was trained with gating {model.config.gating.name!r}")
    network = GatedNetwork(model)
    return write_network(network, network.outputs, description(model, "gated"), file_format, path)


def write_network(
    network: nn.Module, outputs: Sequence[str], described: Mapping[str, str], file_format: FileFormat, path: Path
) -> ExportedFile:
    """Write a network as ONNX or by torch.export, for batches of any size of images (3, image_size, image_size).

    Args:
        network: The network.
        outputs: Names of its outputs.
        described: Its :func:`ssl_dc.export.description.description`, which becomes part of the file.
        file_format: ``onnx`` or ``torch``.
        path: The file; it is replaced if it is there.

    Raises:
        ConfigError: If packages are missing.
        RunError: If the network cannot be exported, or the file cannot be written.
    """
    size = int(described["ssl_dc.image_size"])
    example = torch.zeros(2, 3, size, size)
    if file_format == "onnx":
        write_bytes(path, onnx_bytes(network, example, outputs, described))
    else:
        write_bytes(path, _torch_export_bytes(network, example, described))
    return ExportedFile(path, described)


def write_int8(
    network: nn.Module, described: Mapping[str, str], calibration: Tensor, held_out: Tensor, path: Path
) -> ExportedFile:
    """Write a network as ONNX in int8, see :func:`ssl_dc.export.int8_files.int8_onnx_bytes`, and run the file.

    Args:
        network: Takes images and returns features.
        described: Its :func:`ssl_dc.export.description.description`, which becomes part of the file.
        calibration: Training images (n, 3, H, H), on which the ranges of the activations are measured.
        held_out: Images (m, 3, H, H), on which the file is compared with the network.
        path: The file; it is replaced if it is there.

    Raises:
        ConfigError: If packages are missing.
        RunError: If the network cannot be exported or quantised, or the file cannot be written.
    """
    described = {**described, PREFIX + "precision": json.dumps("int8")}
    content = int8_onnx_bytes(onnx_bytes(network, calibration[:2], ["features"], described), calibration)
    write_bytes(path, content)
    features = torch.from_numpy(session_of(path.read_bytes(), 1).run(None, {"images": held_out.numpy()})[0])
    with torch.no_grad():
        similar = torch.nn.functional.cosine_similarity(features, network(held_out))
    return ExportedFile(path, described, (float(similar.mean()), float(similar.min())))


def _torch_export_bytes(network: nn.Module, example: Tensor, described: Mapping[str, str]) -> bytes:
    buffer = io.BytesIO()
    try:
        batch = torch.export.Dim("batch", min=1)
        program = torch.export.export(network.eval(), (example,), dynamic_shapes=({0: batch},))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # about weights that share memory
            torch.export.save(program, buffer, extra_files={DESCRIPTION_FILE: json.dumps(dict(described))})
    except Exception as error:  # the exporter's own errors have many types
        raise RunError(f"this network cannot be exported: {str(error).strip().splitlines()[0]}") from error
    return buffer.getvalue()
