"""A folder that timm loads: its config, the weights, and the definition of an architecture that timm itself has not."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ssl_dc.atomic_files import write_text
from ssl_dc.backbones.base import TimmNetwork
from ssl_dc.errors import ConfigError, RunError
from ssl_dc.json_files import read_record
from ssl_dc.model import Model
from ssl_dc.routes import Route
from ssl_dc.tensor_files import write_tensors

CONFIG_FILE = "config.json"
MODEL_FILE = "model.safetensors"
DEFINITION_FILE = "ssl_dc_resnet.py"
"""Registers the architecture, where timm itself does not have it."""


def write_timm_folder(model: Model, described: Mapping[str, str], path: Path) -> str:
    """Write the dense route for ``timm.create_model("local-dir:FOLDER", pretrained=True)``.

    Args:
        model: On the CPU.
        described: Its :func:`ssl_dc.export.description.description`, which becomes part of the weights' file.
        path: The folder. An earlier folder of this kind is replaced.

    Returns:
        How it is loaded, for the user.

    Raises:
        ConfigError: If the backbone is no network of timm's, or something else is there already.
        RunError: If the folder cannot be written.
    """
    network = model.encoder.backbone(Route.DENSE).timm_network(Route.DENSE)
    _check_free(path)
    try:
        path.mkdir(exist_ok=True)
        (path / DEFINITION_FILE).unlink(missing_ok=True)
    except OSError as error:
        raise RunError(f"cannot write {path}: {error.strerror or error}") from error
    write_tensors(path / MODEL_FILE, network.state, described)
    if network.definition is not None:
        write_text(path / DEFINITION_FILE, network.definition)
    write_text(path / CONFIG_FILE, json.dumps(_config(model, network), indent=2) + "\n")
    call = f'timm.create_model("local-dir:{path}", pretrained=True)'
    if network.definition is None:
        return call
    return (
        f"{call}, after: import ssl_dc_resnet (with {path} on sys.path). The stem of timm's own ResNet is always 7x7 pixels"
        f" and 64 channels; {DEFINITION_FILE} in the folder registers a ResNet with this run's stem"
    )


def _check_free(path: Path) -> None:
    """Refuse to replace anything but an earlier folder of timm's. A run's folder has a config.json, too."""
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        return
    try:
        if "architecture" in read_record(path / CONFIG_FILE):
            return
    except (OSError, ValueError):
        pass
    raise ConfigError(f"--output {path}: something else is there already, and is not replaced; name a new folder")


def _config(model: Model, network: TimmNetwork) -> dict[str, Any]:
    """What timm reads: the architecture, and which images it takes."""
    data = model.config.data
    return {
        "architecture": network.architecture,
        "num_classes": 0,
        "num_features": model.feature_dim,
        "global_pool": "avg",
        "model_args": dict(network.arguments),
        "pretrained_cfg": {
            "num_classes": 0,
            "input_size": [3, data.image_size, data.image_size],
            "interpolation": "bicubic",
            "crop_pct": 1.0,
            "crop_mode": "center",
            "mean": list(data.mean),
            "std": list(data.std),
            "first_conv": "conv1",
            "classifier": "fc",
        },
    }
