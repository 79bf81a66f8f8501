"""Workers as jobs of submitit: processes of this machine, or jobs of SLURM that are queued again when their time is up."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ssl_dc.errors import ConfigError, RunError, Stopped
from ssl_dc.jobs.tasks import Task, Worked, work
from ssl_dc.training.stopping import StopSignals

LOGS = "jobs"
"""The folder, in the output of a grid, with what the workers print."""
_YEARS_IN_MINUTES = 10 * 365 * 24 * 60
"""Local workers have all the time they need."""
_REQUEUED = 1000
"""How often SLURM may put a worker back into its queue because its time is up."""
_SAVING_SECONDS = 300
"""How long before the end of its time SLURM tells a worker, unless the user says otherwise (``signal_delay_s``)."""


@dataclass
class Worker:
    """What a job runs: all tasks that are left, one after the other.

    When SLURM announces the end of the job's time or a preemption, the training under way saves its step, and the job goes
    back into the queue. Started again, it goes on with whatever is left.

    Attributes:
        tasks: The tasks.
        output: The folder that the workers share.
        threads: CPU threads that it computes with; None for torch's own choice.
    """

    tasks: Sequence[Task]
    output: Path
    threads: int | None = None

    def __call__(self) -> Worked:
        """Work."""
        if self.threads is not None:
            torch.set_num_threads(self.threads)
        with _requeued_when_announced():
            return work(self.tasks, self.output)

    def checkpoint(self) -> Any:
        """What submitit puts back into the queue: the same worker."""
        import submitit

        return submitit.helpers.DelayedSubmission(self)


@contextmanager
def _requeued_when_announced() -> Iterator[None]:
    """Let a training save its step before submitit puts the job back into the queue, which SIGUSR2 asks for."""
    requeue: Any = signal.getsignal(signal.SIGUSR2)
    announced: list[int] = []

    def hear(number: int, frame: Any) -> None:
        if not StopSignals.listening():  # nothing is being trained
            requeue(number, frame)
        announced.append(number)
        os.kill(os.getpid(), signal.SIGTERM)

    if not callable(requeue):  # this is no job of submitit
        yield
        return
    signal.signal(signal.SIGUSR2, hear)
    try:
        yield
    except Stopped:
        if announced:
            requeue(announced[0], None)
        raise
    finally:
        signal.signal(signal.SIGUSR2, requeue)


def on_this_machine(tasks: Sequence[Task], output: Path, jobs: int) -> list[Worked]:
    """Work with several processes of this machine, and wait for their end. Each has a GPU if there are any.

    Raises:
        ConfigError: If submitit is not installed.
        RunError: If a worker ended with an error.
    """
    submitit = submitit_module()
    gpus = torch.cuda.device_count()
    threads = max(1, (os.cpu_count() or 1) // jobs)
    started = []
    for number in range(jobs):
        executor = submitit.LocalExecutor(folder=str(output / LOGS))
        executor.update_parameters(timeout_min=_YEARS_IN_MINUTES)
        if gpus:
            executor.update_parameters(gpus_per_node=1, visible_gpus=[number % gpus])
        started.append(executor.submit(Worker(tuple(tasks), output, threads)))
    try:
        return [_result(job, output) for job in started]
    except BaseException:
        for job in started:
            job.cancel()
        raise


def _result(job: Any, output: Path) -> Worked:
    try:
        result: Worked = job.result()
    except Exception as error:  # submitit raises what the worker raised, or its own kinds
        reason = str(error).strip().splitlines()
        raise RunError(
            f"a worker ended with an error ({reason[-1] if reason else type(error).__name__}); what it said is in"
            f" {output / LOGS}, in files that begin with {job.job_id}. Give the same call again to go on"
        ) from error
    return result


def through_slurm(tasks: Sequence[Task], output: Path, jobs: int, parameters: Mapping[str, Any]) -> list[str]:
    """Put workers into SLURM's queue. They are not waited for.

    Args:
        tasks: The tasks.
        output: The folder that the workers share, on a file system that all machines share.
        jobs: How many workers.
        parameters: What submitit tells SLURM, such as ``{"partition": "gpu", "gpus_per_node": 1, "timeout_min": 600}``.

    Returns:
        The numbers of the jobs.

    Raises:
        ConfigError: If submitit is not installed, there is no SLURM here, or a parameter is not known.
    """
    submitit = submitit_module()
    if {parameters.get("tasks_per_node", 1), parameters.get("ntasks_per_node", 1), parameters.get("nodes", 1)} != {1}:
        raise ConfigError(
            "--slurm: a worker is one process on one machine, so nodes and tasks_per_node are 1. A run on several GPUs is"
            " launched by torchrun in a batch script: docs/many-machines.md"
        )
    try:
        executor = submitit.SlurmExecutor(folder=str(output.absolute() / LOGS), max_num_timeout=_REQUEUED)
        named = {"job_name": "ssl-dc", "signal_delay_s": _SAVING_SECONDS, **_by_slurms_names(parameters)}
        executor.update_parameters(**named)
    except (RuntimeError, ValueError, TypeError) as error:
        raise ConfigError(f"--slurm: {' '.join(str(error).split())}") from error
    worker: Callable[[], Worked] = Worker(tuple(tasks), output.absolute())
    try:
        with executor.batch():
            queued = [executor.submit(worker) for _ in range(jobs)]
        return [str(job.job_id) for job in queued]
    except Exception as error:  # submitit raises errors of its own where sbatch fails
        raise RunError(f"SLURM did not take the jobs: {' '.join(str(error).split())}") from error


def _by_slurms_names(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters by the names that SLURM's own options have, as the executor wants them."""
    names = {"name": "job_name", "timeout_min": "time", "mem_gb": "mem", "tasks_per_node": "ntasks_per_node"}
    named = {names.get(key, key): value for key, value in parameters.items()}
    return {
        key: f"{value}GB" if key == "mem" and isinstance(value, (int, float)) else value for key, value in named.items()
    }


def submitit_module() -> Any:
    """``submitit``.

    Raises:
        ConfigError: If it is not installed.
    """
    try:
        import submitit
    except ImportError:
        raise ConfigError("several workers need submitit: pip install 'ssl-dc[slurm]'") from None
    return submitit
