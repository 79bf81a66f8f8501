"""Whatever ends a run, the processes that prepare images end with it."""

from __future__ import annotations

from pathlib import Path

from helpers.command_line import run_command
from helpers.settings import SHORT, as_options

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
    settings = {**SHORT, "training.workers": 2}
    ended = run_command(
        *("train", "--plugin", "raising.py", "--objective", "raising"),
        *as_options({key: value for key, value in settings.items() if not key.startswith("objective.")}),
        cwd=tmp_path,
    )
    assert ended.returncode == 1
    assert "kaboom" in ended.stderr
