"""Grids: workers that share many runs, here and through SLURM, none of them the same run as another."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from helpers.command_line import HANGS, call, done, message, parsed
from helpers.settings import TINY
from helpers.training import logged, saved_steps
from ssl_dc.config import uniform_layer
from ssl_dc.errors import RunError
from ssl_dc.jobs.tasks import CLAIMS, TrainingTask, Worked, summed, work
from ssl_dc.jobs.workers import LOGS, Worker
from ssl_dc.run_lock import sole_writer
from ssl_dc.training.trainer import Trainer

submitit = pytest.importorskip("submitit", reason="submitit is not installed")


def config(path: Path, **settings: Any) -> Path:
    path.write_text(json.dumps({**TINY, **settings}))
    return path


@dataclass(frozen=True)
class Noted:
    """Takes a moment, and notes in a file that it was done, and by which process."""

    name: str
    folder: Path
    fails: bool = False

    def is_done(self) -> bool:
        return (self.folder / f"{self.name}.done").exists()

    def do(self) -> None:
        if self.fails:
            raise RunError("it cannot be done")
        with (self.folder / f"{self.name}.begun").open("a") as file:
            file.write(f"{os.getpid()}\n")
        time.sleep(0.02)
        (self.folder / f"{self.name}.done").touch()


def test_workers_share_the_tasks_and_none_is_done_twice(tmp_path: Path) -> None:
    tasks = [Noted(f"task{number}", tmp_path) for number in range(12)]
    worked: list[Worked] = []
    threads = [threading.Thread(target=lambda: worked.append(work(tasks, tmp_path))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(len((tmp_path / f"{task.name}.begun").read_text().splitlines()) == 1 for task in tasks)
    assert sorted(summed(worked).done) == sorted(task.name for task in tasks)
    assert len({name for part in worked for name in part.done}) == sum(len(part.done) for part in worked)


def test_a_task_in_work_is_left_and_one_that_fails_is_told(tmp_path: Path) -> None:
    tasks = [Noted("held", tmp_path), Noted("bad", tmp_path, fails=True), Noted("good", tmp_path)]
    held = tmp_path / CLAIMS / "held"
    held.mkdir(parents=True)
    with sole_writer(held):
        assert work(tasks, tmp_path) == Worked(("good",), {"bad": "it cannot be done"}, ("held",))
    assert work(tasks, tmp_path) == Worked(("held",), {"bad": "it cannot be done"}, ())


@pytest.mark.long
def test_two_workers_of_this_machine_train_each_run_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    first = config(tmp_path / "a.json")
    words = (first, config(tmp_path / "b.yaml", **{"gating.name": "none", "budget.target": None, "routes": ["dense"] * 2}))
    found = parsed("grid", *words, "--output", tmp_path / "out", "--jobs", "2")
    assert found == {"done": ["a", "b"], "failed": {}, "left": []}
    for name in "ab":
        assert [line["step"] for line in logged(tmp_path / "out" / name)] == list(range(1, 9))
        history = (tmp_path / "out" / name / "history.jsonl").read_text().splitlines()
        assert [json.loads(line)["from_step"] for line in history] == [0]
    before = (tmp_path / "out" / "a" / "metrics.jsonl").stat().st_mtime_ns
    assert "done" in done("grid", *words, "--output", tmp_path / "out")
    assert (tmp_path / "out" / "a" / "metrics.jsonl").stat().st_mtime_ns == before
    config(first, **{"training.batch_size": 8})
    assert "made with other settings: training.batch_size = 16, now 8" in message(
        "grid", *words, "--output", tmp_path / "out"
    )


@pytest.mark.long
def test_seeds_are_runs_of_their_own_and_faults_are_told(tmp_path: Path) -> None:
    path = config(tmp_path / "a.json", **{"training.epochs": 1})
    assert parsed("grid", path, "--output", tmp_path / "out", "--seeds", "2")["done"] == ["a-seed0", "a-seed1"]
    first, second = (logged(tmp_path / "out" / f"a-seed{seed}")[0]["loss"] for seed in (0, 1))
    assert first != second
    (tmp_path / "other").mkdir()
    assert "has the name a" in message("grid", path, config(tmp_path / "other" / "a.json"), "--output", tmp_path / "o")
    run = tmp_path / "out" / "a-seed1"
    whole = (run / "result.json").read_text()
    (run / "result.json").write_text(whole[: len(whole) // 2])
    again = call("grid", path, "--output", tmp_path / "out", "--seeds", "2")
    assert f"{run / 'result.json'} is damaged and is written again" in again.stderr
    assert json.loads((run / "result.json").read_text()).keys() == json.loads(whole).keys()
    (run / "result.json").write_text("{")
    shutil.rmtree(run / "checkpoints")
    again = call("grid", path, "--output", tmp_path / "out", "--seeds", "2")
    assert again.exit_code == 1
    assert "is damaged, and no resume point is left" in again.stderr
    assert f"{run}: failed" in again.stdout
    config(path, **{"training.epochs": 0})
    assert "training.epochs" in message("grid", path, "--output", tmp_path / "o")
    config(path, **{"data.name": "folder", "data.root": str(tmp_path / "nowhere")})
    failed = call("grid", path, "--output", tmp_path / "o")
    assert failed.exit_code == 1
    assert "1 of 1 runs failed; a: " in failed.stderr


class RequeuedError(Exception):
    """Stands for the end of a job that submitit puts back into the queue."""


@pytest.mark.long
def test_a_training_saves_its_step_before_its_job_is_queued_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    step = Trainer._take_step

    def announced(trainer: Trainer, *arguments: Any, **named: Any) -> Any:
        if trainer.step == 2:
            os.kill(os.getpid(), signal.SIGUSR2)
        return step(trainer, *arguments, **named)

    def requeue(number: int, frame: Any) -> None:
        raise RequeuedError

    worker = Worker((TrainingTask("run", (uniform_layer(TINY, "test"),), tmp_path / "run"),), tmp_path)
    before = signal.signal(signal.SIGUSR2, requeue)
    try:
        monkeypatch.setattr(Trainer, "_take_step", announced)
        with pytest.raises(RequeuedError):
            worker()
        monkeypatch.setattr(Trainer, "_take_step", step)
        assert signal.getsignal(signal.SIGUSR2) is requeue
        assert saved_steps(tmp_path / "run") == [3]
        assert worker().done == ("run",)
    finally:
        signal.signal(signal.SIGUSR2, before)
    assert [line["step"] for line in logged(tmp_path / "run")] == list(range(1, 9))


INTERRUPTED = """
import json, os, signal, sys, time
from pathlib import Path
import ssl_dc
from ssl_dc.config import uniform_layer
from ssl_dc.jobs.tasks import TrainingTask
from ssl_dc.jobs import workers
import submitit

class SlowAtFirst(workers.Worker):
    def __call__(self):
        if not (self.output / "run" / "config.json").exists():
            step = ssl_dc.Trainer.take = ssl_dc.Trainer._take_step
            def counted(trainer, *arguments, **named):
                if trainer.step == 2:
                    os.kill(os.getpid(), signal.SIGUSR2)  # what SLURM sends before the end of a job's time
                return step(trainer, *arguments, **named)
            ssl_dc.Trainer._take_step = counted
        return super().__call__()

output = Path(sys.argv[2])
task = TrainingTask("run", (uniform_layer(json.loads(sys.argv[1]), "test"),), output / "run")
executor = submitit.LocalExecutor(folder=str(output / "jobs"))
executor.update_parameters(timeout_min=60)
import cloudpickle
cloudpickle.register_pickle_by_value(sys.modules["__main__"])
print(json.dumps(executor.submit(SlowAtFirst((task,), output, 1)).result().done))
"""


@pytest.mark.slow
def test_a_job_whose_time_is_up_saves_its_step_and_goes_on_when_it_is_started_again(tmp_path: Path) -> None:
    said = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, json.dumps(TINY), str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=HANGS,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert said.returncode == 0, said.stderr
    assert json.loads(said.stdout) == ["run"]
    history = (tmp_path / "run" / "history.jsonl").read_text().splitlines()
    assert [json.loads(line)["from_step"] for line in history] == [0, 3]
    assert [line["step"] for line in logged(tmp_path / "run")] == list(range(1, 9))


SBATCH = """#!{python}
import pathlib, sys
folder = pathlib.Path({folder!r})
(folder / "submitted.sh").write_text(pathlib.Path(sys.argv[-1]).read_text())
print("Submitted batch job 4711")
"""


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with SLURM's commands, which keep the script that they are given."""
    commands = tmp_path / "commands"
    commands.mkdir()
    for name in ("sbatch", "srun", "squeue", "sacct"):
        (commands / name).write_text(SBATCH.format(python=sys.executable, folder=str(tmp_path)))
        (commands / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{commands}:{os.environ['PATH']}")
    return tmp_path


def test_slurm_is_given_workers_that_are_queued_again_when_their_time_is_up(slurm: Path) -> None:
    path = config(slurm / "a.json")
    words = ("--seeds", "3", "--jobs", "2", "--slurm", "partition=gpu", "--slurm", "gpus_per_node=1")
    found = parsed("grid", path, "--output", slurm / "out", *words, "--slurm", "timeout_min=90", "--slurm", "mem_gb=16")
    assert found == {"queued": ["4711_0", "4711_1"], "left": ["a-seed0", "a-seed1", "a-seed2"]}
    script = (slurm / "submitted.sh").read_text()
    wanted = (
        "partition=gpu",
        "gpus-per-node=1",
        "time=90",
        "mem=16GB",
        "signal=USR2@300",
        "array=0-1%",
        "open-mode=append",
    )
    for option in wanted:
        assert f"#SBATCH --{option}" in script, script
    assert f"{slurm / 'out' / LOGS}" in script
    assert "submitit.core._submit" in script
    pickles = sorted((slurm / "out" / LOGS).glob("*_submitted.pkl"))
    worker = submitit.core.utils.DelayedSubmission.load(pickles[0]).function
    assert [task.name for task in worker.tasks] == ["a-seed0", "a-seed1", "a-seed2"]
    assert worker.checkpoint().function is worker


def test_what_slurm_cannot_do_is_one_message(slurm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, output = config(slurm / "a.json"), slurm / "o"
    assert "docs/many-machines.md" in message("grid", path, "--output", output, "--slurm", "nodes=2")
    unknown = call("grid", path, "--output", output, "--slurm", "colour=red")
    assert (unknown.exit_code, "colour" in unknown.stderr, unknown.stderr.count("\n")) == (2, True, 1)
    (slurm / "commands" / "sbatch").write_text("#!/bin/sh\necho no such partition >&2; exit 1\n")
    refused = call("grid", path, "--output", output, "--slurm", "partition=none")
    assert (refused.exit_code, "no such partition" in refused.stderr) == (1, True)
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    assert "srun" in call("grid", path, "--output", output, "--slurm", "partition=gpu").stderr
    monkeypatch.setitem(sys.modules, "submitit", None)
    assert "pip install 'ssl-dc[slurm]'" in call("grid", path, "--output", output, "--jobs", "2").stderr


def test_another_range_of_budgets_is_another_setting(tmp_path: Path) -> None:
    first = config(tmp_path / "a.json", **{"training.epochs": 1, "budget.target": "0.5:0.9"})
    assert parsed("grid", first, "--output", tmp_path / "out")["done"] == ["a"]
    assert parsed("grid", first, "--output", tmp_path / "out")["done"] == ["a"]
    config(first, **{"training.epochs": 1, "budget.target": "0.5:0.8"})
    assert "made with other settings: budget.grid" in message("grid", first, "--output", tmp_path / "out")
