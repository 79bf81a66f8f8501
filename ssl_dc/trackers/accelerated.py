"""The trackers that Accelerate knows: Weights & Biases, MLflow, Trackio, Aim, SwanLab, Comet, ClearML, DVCLive."""

from __future__ import annotations

import io
import json
import secrets
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from accelerate import PartialState
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers
from PIL import Image

from ssl_dc.atomic_files import write_text
from ssl_dc.errors import ConfigError
from ssl_dc.json_files import read_record
from ssl_dc.trackers.base import StepMetrics, Watcher
from ssl_dc.trackers.options import AcceleratedOptions


class Accelerated(Watcher):
    """A tracker of Accelerate's. It gets the config, the metrics of each logged step, the final result, and pictures.

    A training that is resumed goes on in the same run of Weights & Biases or MLflow. The other trackers begin another one.

    Args:
        options: Which tracker, and how it is started.
        folder: The run's folder. ``tracker.json`` in it says which run of the tracker the training is.

    Raises:
        ConfigError: If the tracker's package is not installed.
    """

    def __init__(self, options: AcceleratedOptions, folder: Path) -> None:
        self.options, self.folder = options, folder
        self.name = options.name.rpartition(":")[2]
        if self.name not in [str(available) for available in get_available_trackers()]:
            raise ConfigError(f"--tracker {self.name} needs a package that is not installed: pip install {self.name}")
        self._tracker: Any = None
        self._step = 0

    @property
    def takes_pictures(self) -> bool:
        """Whether the tracker takes pictures or files."""
        known = LOGGER_TYPE_TO_CLASS[self.name]
        return hasattr(known, "log_images") or hasattr(known, "log_artifact")

    def on_start(self, step: int, total_steps: int) -> None:  # noqa: ARG002  # the event's signature
        """Open the tracker's run, and give it the config."""
        self._step = step
        PartialState()  # Accelerate's trackers ask it which process this is; in a training it is there already
        identity_file = self.folder / "tracker.json"
        known = str(_read(identity_file).get(self.name) or "") or None
        identity = (known or secrets.token_hex(8)) if self.name == "wandb" else known
        arguments = {**_arguments(self.name, self.folder, identity), **self.options.settings}
        self._tracker = LOGGER_TYPE_TO_CLASS[self.name](self.options.project, **arguments)
        self._tracker.start()
        if self.name == "mlflow":
            identity = self._tracker.tracker.info.run_id
        if identity != known:
            write_text(identity_file, json.dumps({self.name: identity}) + "\n")
        if known is None:  # MLflow refuses a setting that has changed, as the length does when a run is trained for longer
            self._tracker.store_init_configuration(dict(_flat(_read(self.folder / "config.json"))))

    def on_step(self, metrics: StepMetrics) -> None:
        """Log the step's values."""
        self._step = metrics.step
        values = {**metrics.values, "epoch": metrics.epoch, "images_per_second": metrics.images_per_second}
        self._tracker.log(values, step=metrics.step)

    def on_result(self, result: Mapping[str, Any]) -> None:
        """Log the numbers of the result, and the table of the routes where the tracker takes tables or files."""
        numbers = {key: value for key, value in _flat(result, "result/", "/") if isinstance(value, (int, float))}
        self._tracker.log({key: float(value) for key, value in numbers.items()}, step=self._step)
        if hasattr(self._tracker, "log_table"):
            routes = result.get("routes", {})
            columns = ["knn1", "knn1_untrained", "macs", "ratio"]
            rows = [[str(route), *(reached.get(column) for column in columns)] for route, reached in routes.items()]
            self._tracker.log_table("result/table", columns=["route", *columns], data=rows, step=self._step)
        elif hasattr(self._tracker, "log_artifact"):
            self._log_file("result.json", json.dumps(result, default=str).encode())

    def on_picture(self, name: str, png: bytes) -> None:
        """Log a picture, where the tracker takes pictures or files."""
        if hasattr(self._tracker, "log_images"):
            self._tracker.log_images({name: [Image.open(io.BytesIO(png))]}, step=self._step)
        elif hasattr(self._tracker, "log_artifact"):
            self._log_file(f"{name}.png", png)

    def on_close(self) -> None:
        """Close the tracker's run."""
        if self._tracker is not None:
            self._tracker.finish()

    def _log_file(self, name: str, content: bytes) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / name.replace("/", "-")
            path.write_bytes(content)
            self._tracker.log_artifact(str(path))


def _arguments(name: str, folder: Path, identity: str | None) -> dict[str, Any]:
    """What a tracker is started with: the name of its run, where its files go, and which run it is if it is resumed."""
    of_tracker: dict[str, dict[str, Any]] = {
        "wandb": {"name": folder.name, "dir": str(folder), "id": identity, "resume": "allow"},
        "mlflow": {"run_name": folder.name, "run_id": identity},
        "trackio": {"name": folder.name},
        "aim": {"logging_dir": str(folder)},
        "swanlab": {"experiment_name": folder.name, "logdir": str(folder / "swanlog")},
        "dvclive": {"dir": str(folder / "dvclive")},
    }
    return of_tracker.get(name, {})


def _read(path: Path) -> dict[str, Any]:
    """A JSON object in a file; empty if there is none."""
    try:
        return read_record(path)
    except (OSError, ValueError):
        return {}


def _flat(values: Mapping[str, Any], prefix: str = "", separator: str = ".") -> Iterator[tuple[str, Any]]:
    """The values by their full names, each of a type that every tracker takes: bool, number or text."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}{separator}", separator)
        elif isinstance(value, (bool, int, float, str)):
            yield f"{prefix}{key}", value
        else:
            yield f"{prefix}{key}", json.dumps(value, default=str)
