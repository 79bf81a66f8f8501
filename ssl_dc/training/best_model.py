"""The best model so far by a measure of the looks, beside the last one."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

from ssl_dc.atomic_files import read_bytes, write_bytes, write_text
from ssl_dc.encoders.base import Encoder
from ssl_dc.errors import RunError
from ssl_dc.json_files import read_record
from ssl_dc.run_folder import BEST, RunFolder

RECORD_FILE = "best.json"
WITH_LABELS = (
    "Labels chose this step: images that are not the test images, but have labels. Its test accuracy is not comparable with"
    " that of a model that was trained without labels and is the last of its run."
)
WITHOUT_LABELS = "No labels chose this step. The measure says how many directions the features use, not how good they are."


class BestModel:
    """Keeps the best model in ``best/`` of a run, a folder that :func:`ssl_dc.load` takes.

    Its gates have the thresholds of that step. They are calibrated anew only after the last step of a training.

    Args:
        run: The run's folder.
        metric: The measure, such as ``knn/dense``.
        is_better: Whether a value of the metric is better than another.
    """

    def __init__(self, run: RunFolder, metric: str, is_better: Callable[[str, float, float], bool]) -> None:
        self.run, self.metric, self.is_better = run, metric, is_better
        self.best = RunFolder(run.path / BEST)

    def offer(self, encoder: Encoder, step: int, value: float) -> None:
        """Keep the encoder of a step if it is better than what is kept. A value that is not finite is no measure.

        What is kept of this step or a later one is of a training that was continued from before it, and does not count.

        Raises:
            RunError: If it cannot be written.
        """
        if not math.isfinite(value):
            return
        kept = self._kept()
        if kept is not None and kept["step"] < step and not self.is_better(self.metric, value, float(kept["value"])):
            return
        try:
            self.best.path.mkdir(exist_ok=True)
            write_bytes(self.best.config_file, read_bytes(self.run.config_file))
        except OSError as error:
            raise RunError(f"cannot keep the best model in {self.best.path}: {error.strerror or error}") from error
        self.best.save_model(encoder)
        by_labels = self.metric.startswith(("knn", "linear"))
        record = {
            "metric": self.metric,
            "value": value,
            "step": step,
            "means": WITH_LABELS if by_labels else WITHOUT_LABELS,
        }
        write_text(self.best.path / RECORD_FILE, json.dumps(record, indent=2) + "\n")

    def _kept(self) -> dict[str, Any] | None:
        """The record of what is kept; None if there is none that can be read."""
        try:
            record = read_record(self.best.path / RECORD_FILE)
            return (
                {"step": int(record["step"]), "value": float(record["value"])} if record["metric"] == self.metric else None
            )
        except (OSError, ValueError, TypeError, KeyError):
            return None
