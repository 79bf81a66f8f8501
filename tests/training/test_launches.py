"""Launches that this program cannot honour are refused in a sentence, and the launch that the docs show trains."""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path

import pytest

from helpers.command_line import refused, run_python
from helpers.launched_steps import part_of_run
from helpers.settings import TWO_BY_TWO, as_options
from helpers.training import logged

DOCS = Path(__file__).parents[2] / "docs" / "many-machines.md"


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("ACCELERATE_USE_FSDP", "true", "ACCELERATE_USE_FSDP: set in the environment"),
        ("ACCELERATE_USE_DEEPSPEED", "1", "launch with torchrun"),
        ("ACCELERATE_USE_MEGATRON_LM", "yes", "the config alone decides how a run trains"),
        ("ACCELERATE_DYNAMO_BACKEND", "inductor", "ACCELERATE_DYNAMO_BACKEND"),
        ("OMPI_COMM_WORLD_SIZE", "2", "launch with torchrun instead"),
        ("WORLD_SIZE", "two", "WORLD_SIZE is 'two'"),
    ],
)
def test_launches_that_would_train_otherwise_are_refused(
    variable: str, value: str, said: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(variable, value)
    assert said in refused("train", *as_options(TWO_BY_TWO)).splitlines()[-1]


@pytest.mark.long
def test_the_launch_of_the_docs_goes_on_with_a_run(tmp_path: Path) -> None:
    shown = [line for line in re.findall(r"^torchrun .*", DOCS.read_text(), re.MULTILINE) if "--nproc_per_node 2" in line]
    (line,) = shown
    part_of_run(tmp_path / "run", TWO_BY_TWO, until=1)
    words = [str(tmp_path / "run") if word == "runs/one" else word for word in shlex.split(line)[1:]]
    environment = {"OMP_NUM_THREADS": "1", "HOME": os.environ.get("HOME", str(tmp_path))}
    said = run_python("-m", "torch.distributed.run", "--standalone", *words, **environment)
    assert said.returncode == 0, said.stderr[-2000:]
    assert "training from step 1 to 4" in said.stderr
    assert "kNN-1" in said.stdout
    assert [entry["step"] for entry in logged(tmp_path / "run")] == [1, 2, 3, 4]
