"""A long training takes no more memory, and no more open files, than a short one."""

from __future__ import annotations

import gc
import json
import os
import time
from pathlib import Path

import pytest

import ssl_dc
from helpers.settings import TINY
from ssl_dc.errors import Stopped
from ssl_dc.trackers.base import Watcher

MINUTES = float(os.environ.get("SSL_DC_SOAK_MINUTES", "12"))
SETTINGS = {
    **TINY,
    "data.limit": 128,
    "training.batch_size": 32,
    "training.workers": 1,
    "training.epochs": 1_000_000,
    "tracker.name": "tensorboard",
}
"""Four steps an epoch, a resume point at the end of each."""


def resident() -> float:
    """Memory of this process, in MiB."""
    fields = Path("/proc/self/statm").read_text().split()
    return int(fields[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


class Meter(Watcher):
    """Measures twenty times, at equal distances, then asks for the end as a scheduler would."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.began = seconds, time.monotonic()
        self.measured: list[dict[str, float]] = []

    def on_epoch_end(self, epoch: int) -> None:
        passed = time.monotonic() - self.began
        if passed >= self.seconds * (len(self.measured) + 1) / 20:
            gc.collect()
            self.measured.append(
                {"epoch": epoch, "seconds": round(passed), "MiB": round(resident(), 1), "files": open_files()}
            )
            if len(self.measured) == 20:
                os.kill(os.getpid(), 15)


@pytest.mark.slow
@pytest.mark.timeout(int(60 * MINUTES) + 300)
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="this system does not say what a process uses in /proc")
def test_memory_and_open_files_do_not_grow(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    meter = Meter(60 * MINUTES)
    with pytest.raises(Stopped):
        ssl_dc.train(SETTINGS, output=tmp_path / "run", watchers=[meter])
    with capsys.disabled():
        print("\n" + "\n".join(json.dumps(each) for each in meter.measured))
    settled, last = meter.measured[3], meter.measured[-1]
    assert last["files"] <= settled["files"]
    assert last["MiB"] <= settled["MiB"] * 1.02 + 4
