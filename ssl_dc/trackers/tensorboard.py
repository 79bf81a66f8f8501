"""Writes metrics for TensorBoard."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ssl_dc.errors import ConfigError
from ssl_dc.trackers.base import StepMetrics, Watcher
from ssl_dc.trackers.options import TensorBoardOptions


class TensorBoard(Watcher):
    """The tracker ``tensorboard``. It writes the metrics of each logged step as scalars.

    Args:
        options: It has none.
        folder: The run's folder. The files are written to ``tensorboard/`` in it.

    Raises:
        ConfigError: If TensorBoard is not installed.
    """

    def __init__(self, options: TensorBoardOptions, folder: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise ConfigError("--tracker tensorboard needs TensorBoard: pip install 'ssl-dc[tensorboard]'") from error
        self._writer_class: Any = SummaryWriter
        self.options = options
        self._folder = folder / "tensorboard"

    def on_start(self, step: int, total_steps: int) -> None:  # noqa: ARG002  # the event's signature
        """Open the files, and drop what a killed run wrote after its resume point."""
        self.writer = self._writer_class(str(self._folder), purge_step=step + 1)

    def on_step(self, metrics: StepMetrics) -> None:
        """Write the step's values."""
        for name, value in {**metrics.values, "images_per_second": metrics.images_per_second}.items():
            self.writer.add_scalar(name, value, metrics.step)

    def on_end(self) -> None:
        """Flush and close."""
        self.writer.close()
