"""Whatever ends a run, the processes that prepare images end with it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

RAISING = """
import ssl_dc

class Options(ssl_dc.PartOptions):
    name: str = "raising"

class Raising(ssl_dc.Objective):
    weights = {"term": 1.0}

    def __init__(self, options, feature_dim):
        super().__init__()

    def forward(self, views):
        raise RuntimeError("kaboom")

@ssl_dc.hookimpl
def ssl_dc_objectives():
    return [ssl_dc.Part(name="raising", target=f"{__name__}:Raising", options=f"{__name__}:Options", summary="Raises.")]
"""


def test_a_part_that_raises_ends_the_process(tmp_path: Path) -> None:
    (tmp_path / "raising.py").write_text(RAISING)
    options = (
        "--plugin raising.py --objective raising --budget 0.5 --epochs 1 --limit 64 --batch-size 32 --width 8 --workers 2"
    )
    ended = subprocess.run(
        [sys.executable, "-m", "ssl_dc", "train", *options.split()],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert ended.returncode == 1
    assert "kaboom" in ended.stderr
