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
from ssl_dc.export.timm_folder import write_timm_folder
from ssl_dc.model import Model
from ssl_dc.routes import Route
from ssl_dc.tensor_files import write_tensors

FileFormat = Literal["onnx", "torch", "torchvision", "timm"]
FORMATS: Mapping[FileFormat, str] = {"onnx": ".onnx", "torch": ".pt2", "torchvision": ".safetensors", "timm": "-timm"}
"""Ending of the names: ONNX, torch.export, a state_dict that torchvision's model of that name loads, a folder for timm."""
OF_OTHER_LIBRARIES = ("torchvision", "timm")
"""The formats for another library's own networks, which have no gates."""
DESCRIPTION_FILE = "ssl_dc.json"
"""Name of the description among the extra files of a torch.export archive."""


@dataclass(frozen=True)
class ExportedFile(Report):
    """A file, or a folder of files, that was written.

    Attributes:
        path: The file.
        described: What the file says of itself.
        loading: How it is loaded, where there is something to say.
        agreement: Of an int8 file: cosine similarity of its features and those of the float32 network, mean and least over
            held-out images, taken by running the file; None for float32.
    """

    path: Path
    described: Mapping[str, str]
    loading: str = ""
    agreement: tuple[float, float] | None = None

    @property
    def size(self) -> int:
        """Bytes of the file, or of the files of the folder."""
        files = self.path.iterdir() if self.path.is_dir() else [self.path]
        return sum(file.stat().st_size for file in files)

    def as_json(self) -> dict[str, Any]:
        """The file, its size in bytes, its description, how it is loaded and, for int8, how far it agrees with float32."""
        written: dict[str, Any] = {"file": str(self.path), "bytes": self.size, "description": dict(self.described)}
        if self.loading:
            written["loading"] = self.loading
        if self.agreement is not None:
            written["cosine_with_float32"] = dict(zip(("mean", "least"), self.agreement, strict=True))
        return written

    def tables(self) -> Sequence[ReportTable]:
        """The description as a table, and the file below it."""
        note = f"written: {self.path} ({self.size / 2**20:.1f} MiB)"
        if self.agreement is not None:
            mean, least = self.agreement
            note += (
                f"\nThe file was run: its features have a cosine similarity of {mean:.4f} with those of the float32 network"
                f" ({least:.4f} at least). ssl-dc bench shows what that does to accuracy."
            )
        note += f"\nload it with: {self.loading}" if self.loading else ""
        return [ReportTable("what the file says of itself", ("key", "value"), list(self.described.items()), note=note)]


def export(model: Model, route: Route, file_format: FileFormat, path: Path) -> ExportedFile:
    """Write one route of a model.

    Args:
        model: On the CPU.
        route: ``dense``: an ordinary network. ``gated``: with its masks, see :class:`GatedNetwork`.
        file_format: One of ``FORMATS``.
        path: The file, or the folder for ``timm``; it is replaced if it is there.

    Raises:
        ConfigError: If the route does not exist in that format, or packages are missing.
        RunError: If the network cannot be exported, or the file cannot be written.
    """
    if file_format in OF_OTHER_LIBRARIES:
        if route.gated:
            raise ConfigError(f"{file_format}'s networks have no gates: --format {file_format} takes --route dense only")
        described = description(model, "dense")
        if file_format == "timm":
            return ExportedFile(path, described, write_timm_folder(model, described, path))
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
    agreement = float(similar.mean()), float(similar.min())
    return ExportedFile(path, described, agreement=agreement)


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
