"""The times that a training was begun or continued, as JSON lines."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path

from ssl_dc.atomic_files import append_line
from ssl_dc.run_folder import environment
from ssl_dc.trackers.base import Watcher


class HistoryFile(Watcher):
    """Appends a line to a file when a training starts: when, from which step, how long it is to be, and the environment.

    Args:
        path: The file.
        epochs: Epochs of the whole training.
    """

    def __init__(self, path: Path, epochs: int) -> None:
        self.path, self.epochs = path, epochs

    def on_start(self, step: int, total_steps: int) -> None:
        """Write the line.

        Raises:
            RunError: If it cannot be written.
        """
        now = datetime.now().astimezone().isoformat(timespec="seconds")
        record = {"time": now, "from_step": step, "epochs": self.epochs, "total_steps": total_steps}
        append_line(self.path, json.dumps({**record, "environment": environment()}))
