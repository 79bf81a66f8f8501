"""Weights of a run, of a safetensors file, or of a file that torch has saved. Nothing in them is executed."""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ssl_dc.atomic_files import read_bytes
from ssl_dc.config import RunConfig
from ssl_dc.encoders.base import Encoder
from ssl_dc.errors import ConfigError, RunError
from ssl_dc.printable import name_of
from ssl_dc.routes import Route
from ssl_dc.run_folder import RunFolder, outline
from ssl_dc.tensor_files import parse_tensors

WRAPPERS = ("state_dict", "model_state_dict", "model", "encoder", "student", "teacher")
"""Keys under which training programs keep the weights in a larger file, the first that is there."""
FIRST_BLOCK = ("layer1.0.conv1.weight", "layer1.0.bn1.weight")
"""Two names that every ResNet of torchvision's and timm's has. What stands before them is a prefix."""


@dataclass(frozen=True)
class WeightFile:
    """The weights in a file.

    Attributes:
        path: The file, absolute.
        sha256: Of its content.
        tensors: Each tensor by its own name.
        by_torchvision_name: The own name of each tensor that has a counterpart in a ResNet of torchvision's, by the name
            that it has there. timm's ResNets have the same names.
        network: The backbone of the run that the weights are of, as the end of a message; empty for other files.
    """

    path: Path
    sha256: str
    tensors: Mapping[str, Tensor]
    by_torchvision_name: Mapping[str, str]
    network: str = ""


def read_weights(path: Path) -> WeightFile:
    """Read the weights of a run's folder or of a file: safetensors, or what ``torch.save`` wrote of tensors.

    Raises:
        ConfigError: If there are no weights, or the file cannot be read without executing what it holds.
    """
    config = RunFolder.existing(path).config_of_network() if path.is_dir() else None
    file = path / "model.safetensors" if path.is_dir() else path
    try:
        content = read_bytes(file)
    except FileNotFoundError as error:
        missing = f" {RunFolder(path).why_no_model()}" if config else ": there is no such file"
        raise ConfigError(f"training.init: {path}{missing}") from error
    except OSError as error:
        raise ConfigError(f"training.init: cannot read {file}: {error.strerror or error}") from error
    is_safetensors = file.suffix == ".safetensors" or content[8:9] == b"{"
    try:
        tensors = parse_tensors(content, file) if is_safetensors else _saved_by_torch(content, file)
    except RunError as error:
        raise ConfigError(f"training.init: {error}") from error
    if config is not None:
        names = _torchvision_names_of_run(config)
    else:
        prefix = _prefix(tensors)
        names = {name.removeprefix(prefix): name for name in tensors if name.startswith(prefix)}
    network = "" if config is None else f"; its network is {_network(config)}"
    return WeightFile(file.absolute(), hashlib.sha256(content).hexdigest(), tensors, names, network)


def torchvision_names(encoder: Encoder) -> dict[str, str]:
    """Torchvision's name for each entry of an encoder's state_dict that torchvision's network of the same kind has too."""
    own = {id(module): f"{name}." if name else "" for name, module in encoder.named_modules()}
    names = {}
    for route in Route.BOTH:
        backbone = encoder.backbone(route)
        prefix = own.get(id(backbone))
        if prefix is not None:
            names.update({f"{prefix}{name}": theirs for name, theirs in backbone.torchvision_names().items()})
    return names


def _network(config: RunConfig) -> str:
    """The backbone of a run, as options of a training."""
    options = config.backbone.model_dump(mode="json", exclude_none=True)
    return " ".join(f"--backbone.{key} {name_of(str(value))}" for key, value in options.items())


def _torchvision_names_of_run(config: RunConfig) -> dict[str, str]:
    """The own name of the tensors of a run by torchvision's names. Of the norms of two routes the dense one's counts."""
    encoder = outline(config)
    names = {} if encoder is None else torchvision_names(encoder)
    dense_last = sorted(names, key=lambda name: "dense" in name.split("."))
    return {names[name]: name for name in dense_last}


def _saved_by_torch(content: bytes, file: Path) -> dict[str, Tensor]:
    """The tensors of a file that ``torch.save`` wrote.

    Torch unpickles it without executing anything (``weights_only``): a file that asks for more than tensors is refused.
    """
    stream = io.BytesIO(content)
    try:
        compressed = _is_compressed(stream)
        stream.seek(0)
        loaded = None if compressed else torch.load(stream, map_location="cpu", weights_only=True)
    except Exception as error:  # a stranger's file may make the parser raise anything
        raise ConfigError(
            f"training.init: {file} is neither a safetensors file nor one of tensors alone that torch.save wrote. A file"
            " that holds more, such as a whole model, could execute code and is not loaded: save its state_dict, best as"
            " safetensors"
        ) from error
    if compressed:  # a small file could take all memory
        raise ConfigError(f"training.init: {file} is a compressed archive, which torch.save never writes")
    tensors = _tensors_in(loaded)
    if not tensors:
        raise ConfigError(f"training.init: {file} holds no tensors by name")
    return tensors


def _is_compressed(stream: io.BytesIO) -> bool:
    """Whether a file is a zip archive with compressed entries."""
    if not zipfile.is_zipfile(stream):
        return False
    with zipfile.ZipFile(stream) as archive:
        return any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist())


def _tensors_in(loaded: Any) -> dict[str, Tensor]:
    """The tensors by name in what a file holds, directly or under a usual key."""
    while isinstance(loaded, Mapping):
        tensors = {str(name): value for name, value in loaded.items() if isinstance(value, Tensor)}
        if tensors:
            return tensors
        loaded = next((loaded[key] for key in WRAPPERS if key in loaded), None)
    return {}


def _prefix(tensors: Mapping[str, Tensor]) -> str:
    """What stands before torchvision's names, such as ``module.encoder_q.``: the first in the file that has a ResNet."""
    first, second = FIRST_BLOCK
    prefixes = (name.removesuffix(first) for name in tensors if name.endswith(first))
    return next((prefix for prefix in prefixes if f"{prefix}{second}" in tensors), "")
