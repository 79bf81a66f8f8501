"""The folder of a run: what is in it, under which name.

``config.json``
    The complete config; ``ssl-dc train --config`` reads it too.
``model.safetensors``
    The trained encoder; with ``config.json`` beside it, all that :func:`ssl_dc.load` needs.
``data.json``
    How many training images there were when the run began, and a fingerprint of them.
``bad_images.json``
    The images that could not be read, if there were any and ``data.bad_images`` is ``skip``.
``metrics.jsonl``
    One JSON object for each logged step.
``environment.json``
    Versions, device and code that the run was started with.
``result.json``
    What was learned and what it costs.
``checkpoints/``
    Resume points.
"""

from __future__ import annotations

import json
import platform
import subprocess
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ssl_dc.assemble import build_encoder, build_network
from ssl_dc.atomic_files import write_text
from ssl_dc.config import RunConfig, dump, read_complete
from ssl_dc.data.base import ImageSet
from ssl_dc.errors import ConfigError, RunError
from ssl_dc.model import Model
from ssl_dc.printable import name_of
from ssl_dc.tensor_files import check_fit, fill, read_tensors, write_tensors

_RECORDED = ("ssl-dc", "torch", "torchvision", "accelerate", "numpy", "pydantic", "safetensors")


class RunFolder:
    """A run on disk.

    Args:
        path: The folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config_file = path / "config.json"
        self.model_file = path / "model.safetensors"
        self.data_file = path / "data.json"
        self.bad_images_file = path / "bad_images.json"
        self.metrics_file = path / "metrics.jsonl"
        self.environment_file = path / "environment.json"
        self.result_file = path / "result.json"
        self.checkpoints = path / "checkpoints"

    @classmethod
    def create(cls, path: Path, config: RunConfig) -> RunFolder:
        """Make the folder of a new run, with its config and environment.

        Raises:
            ConfigError: If something is there already: no run is ever overwritten.
            RunError: If it cannot be made.
        """
        cls.check_free(path)
        folder = cls(path)
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(f"cannot make the run folder {path}: {error.strerror or error}") from error
        write_text(folder.config_file, dump(config))
        write_text(folder.environment_file, json.dumps(environment(), indent=2) + "\n")
        return folder

    @staticmethod
    def check_free(path: Path) -> None:
        """Check that a new run may go there.

        Raises:
            ConfigError: If something is there already.
        """
        if path.exists() and (not path.is_dir() or any(not _half_written(entry) for entry in path.iterdir())):
            raise ConfigError(
                f"{path} is there already and is not overwritten; name another --output, or go on with --resume"
            )

    @classmethod
    def existing(cls, path: Path) -> RunFolder:
        """The folder of a run that was started before.

        Raises:
            ConfigError: If there is no run, or something in the folder is a link that leads out of it.
        """
        folder = cls(path)
        if not folder.config_file.is_file():
            raise ConfigError(f"{path} is not a run folder: it has no {folder.config_file.name}")
        folder._check_links()
        return folder

    def _check_links(self) -> None:
        """Refuse what would be read, written or deleted elsewhere; a folder may come from anybody."""
        inside = self.path.resolve()
        for entry in (*self.path.iterdir(), *self.checkpoints.glob("*"), *self.checkpoints.glob("*/*")):
            if entry.is_symlink() and not entry.resolve().is_relative_to(inside):
                raise ConfigError(
                    f"{entry} is a link that leads out of the folder, and is not followed; copy what is meant, as by cp -rL"
                )

    def config(self) -> RunConfig:
        """The run's config.

        Raises:
            ConfigError: If it is not valid, or lacks a whole section: what a run was is not guessed from defaults.
        """
        return read_complete(self.config_file)

    def save_data(self, images: ImageSet) -> None:
        """Record which images are trained on."""
        write_text(self.data_file, json.dumps(_recorded(images), indent=2) + "\n")

    def check_data(self, images: ImageSet) -> None:
        """Check that images are those that the run began with, as far as it is recorded.

        Raises:
            ConfigError: If they are not.
        """
        if not self.data_file.is_file():
            return
        try:
            before, now = dict(json.loads(self.data_file.read_text(encoding="utf-8"))), _recorded(images)
        except (OSError, ValueError, TypeError, RecursionError) as error:
            raise ConfigError(f"{self.data_file} cannot be read: {name_of(str(error))}") from error
        if before != now:
            count = f"it had {name_of(str(before.get('images')))} images, and has {now['images']} now"
            raise ConfigError(
                f"the training images of {self.path} are not those that it began with: {count}. Give it the same ones"
                " (--data-root says where they are), or go on with these: --accept-changed-data"
            )

    def save_bad_images(self, reasons: Mapping[str, Sequence[str]]) -> None:
        """List what could not be read: reasons by split."""
        write_text(self.bad_images_file, json.dumps(reasons, indent=2) + "\n")

    def save_model(self, encoder: nn.Module) -> None:
        """Write the encoder's weights."""
        write_tensors(self.model_file, encoder.state_dict())

    def load_model(self, device: torch.device | str = "cpu") -> Model:
        """The trained model, on a device.

        Raises:
            ConfigError: If the config is not valid.
            RunError: If the weights are not there, damaged, or not those of the config's network.
        """
        config = self.config()
        if not self.model_file.is_file():
            raise RunError(
                f"{self.path} has no {self.model_file.name}: its training has not ended; go on with"
                f" ssl-dc train --resume {self.path}"
            )
        tensors = read_tensors(self.model_file)
        if outline := _outline(config):
            check_fit(outline, tensors, self.model_file)
        network = build_network(config)
        fill(network.encoder, tensors, self.model_file)
        return Model(config, network.encoder, network.cost).to(device)

    def save_result(self, result: dict[str, Any]) -> None:
        """Write what was learned."""
        write_text(self.result_file, json.dumps(result, indent=2) + "\n")


def _half_written(entry: Path) -> bool:
    """Whether a file is what :mod:`ssl_dc.atomic_files` leaves of one when it is killed."""
    return entry.name.startswith(".") and entry.name.endswith(".partial")


def _recorded(images: ImageSet) -> dict[str, Any]:
    return {"images": len(images), "fingerprint": images.fingerprint()}


def _outline(config: RunConfig) -> nn.Module | None:
    """The network without memory for its weights, so that a config alone cannot ask for more than there is.

    None where a part cannot be built so.
    """
    try:
        with torch.device("meta"):
            return build_encoder(config)[0]
    except Exception:  # a stranger's part may raise anything; whatever is wrong shows when it is built for good
        return None


def environment() -> dict[str, Any]:
    """Versions, device and git commit (if any) of this process."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "versions": {name: metadata.version(name) for name in _RECORDED},
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "threads": torch.get_num_threads(),
        "git_commit": _git_commit(),
    }


def _git_commit() -> str | None:
    """The commit checked out in the working directory, if it is a git checkout and git is there."""
    try:
        answer = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10, check=True)  # noqa: S607
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip()
