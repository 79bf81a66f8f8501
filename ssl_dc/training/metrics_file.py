"""Metrics as JSON lines, one for each logged step."""

from __future__ import annotations

import json
from pathlib import Path

from ssl_dc.atomic_files import append_line, read_bytes, write_text
from ssl_dc.errors import RunError
from ssl_dc.trackers.base import StepMetrics, Watcher


class MetricsFile(Watcher):
    """Appends each logged step to a file. A resumed run first removes the lines of later steps.

    The speed is not written, so that the same config gives the same file.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_start(self, step: int, total_steps: int) -> None:  # noqa: ARG002  # the event's signature
        """Remove the lines of the steps after the resume point.

        Raises:
            RunError: If the file cannot be read or written.
        """
        try:
            text = read_bytes(self.path).decode("utf-8", errors="replace")
        except FileNotFoundError:
            return
        except OSError as error:
            raise RunError(f"cannot read {self.path}: {error.strerror or error}") from error
        kept = [line for line in text.splitlines() if _step(line) <= step]
        write_text(self.path, "".join(f"{line}\n" for line in kept))

    def on_step(self, metrics: StepMetrics) -> None:
        """Write a line.

        Raises:
            RunError: If it cannot be written.
        """
        line = json.dumps({"step": metrics.step, "epoch": metrics.epoch, **metrics.values})
        append_line(self.path, line)


def _step(line: str) -> float:
    """The step of a line; infinite if the line is incomplete, as when the run was killed."""
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError, RecursionError, OverflowError):
        return float("inf")
