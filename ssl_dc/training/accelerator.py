"""The Accelerator. A launch that would silently train in the wrong way is refused."""

from __future__ import annotations

import functools
import os
import signal
from pathlib import Path

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from accelerate.state import AcceleratorState
from accelerate.utils import GradientAccumulationPlugin

from ssl_dc.data.workers import when_parent_ends
from ssl_dc.errors import ConfigError

_MPI_SIZES = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE")
"""Where mpirun tells a process how many it has started."""

_OTHER_LOOPS = (
    "ACCELERATE_USE_DEEPSPEED",
    "ACCELERATE_USE_FSDP",
    "ACCELERATE_USE_MEGATRON_LM",
    "ACCELERATE_USE_PARALLELISM_CONFIG",
    "ACCELERATE_USE_SAGEMAKER",
)
"""Variables by which Accelerate would train in another way than the config says."""


def make_accelerator(precision: str) -> Accelerator:
    """Make the accelerator of this process.

    The config alone decides what is computed. A process may make several accelerators one after the other, also with
    different precisions.

    Args:
        precision: ``no``, ``fp16`` or ``bf16``.

    Raises:
        ConfigError: If the precision or the launch cannot work on this machine.
    """
    no_gpu = not torch.cuda.is_available()
    if precision == "fp16" and no_gpu:
        raise ConfigError("training.precision = 'fp16' needs a CUDA GPU, and there is none here; allowed: no, bf16")
    launched = _launched_processes()
    _refuse_other_loops()
    if launched > 1 and no_gpu:
        keep_to_own_processors()
    AcceleratorState._reset_state()  # it keeps the precision of an earlier training of this process
    accelerator = Accelerator(
        mixed_precision=precision,
        # Without cpu=True, each process of a launch on a machine without a GPU would train alone.
        cpu=launched > 1 and no_gpu,
        # Without it, ACCELERATE_GRADIENT_ACCUMULATION_STEPS would divide the gradients once more.
        gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=1),
        # A step may leave a route unused, and with it the norms and gates of that route. Gradients lie where they are
        # exchanged: they need not be copied there and back.
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True, gradient_as_bucket_view=True)],
    )
    if launched != accelerator.num_processes:
        raise ConfigError(
            f"launched as {launched} processes, but they train as {accelerator.num_processes}; launch with"
            " torchrun, or with accelerate launch on a machine with that many GPUs"
        )
    if "TORCHELASTIC_RUN_ID" in os.environ:
        _end_with_launcher()
    return accelerator


def keep_to_own_processors() -> None:
    """Let this process and its threads run on its share of the machine's processors, if several train here on CPUs.

    They wait for each other many times in a step. A system that wakes two of them on one processor, while another one is
    idle, mends that only milliseconds later. A process that has more threads than its share stays free, as does one whose
    launcher has told it nothing or has given it processors of its own.
    """
    told = [os.environ.get(variable, "") for variable in ("LOCAL_RANK", "LOCAL_WORLD_SIZE")]
    if not all(map(str.isdecimal, told)) or not hasattr(os, "sched_setaffinity"):  # which macOS and Windows have not
        return
    number, here = map(int, told)
    allowed = os.sched_getaffinity(0)
    share = len(allowed) // max(here, 1)
    if number < here > 1 and len(allowed) == os.cpu_count() and share >= torch.get_num_threads():
        os.sched_setaffinity(0, sorted(allowed, key=_core)[number * share : (number + 1) * share])


def _core(processor: int) -> tuple[str, int]:
    """Sorts processors so that those of one core are neighbours, where Linux tells it."""
    try:
        siblings = Path(f"/sys/devices/system/cpu/cpu{processor}/topology/thread_siblings_list").read_text()
    except OSError:
        siblings = ""
    return siblings, processor


def _launched_processes() -> int:
    """Number of processes that the launcher has started; 1 without a launcher.

    Raises:
        ConfigError: If they could not find one another.
    """
    size = os.environ.get("WORLD_SIZE", "1")
    if not size.isdecimal() or int(size) < 1:
        raise ConfigError(f"the environment variable WORLD_SIZE is {size!r}; a launcher sets it to a number, from 1 on")
    for variable in _MPI_SIZES:
        started = os.environ.get(variable, "1")
        if started not in ("1", size):
            raise ConfigError(
                f"mpirun has started {started} processes ({variable}), each of which would train a whole run of its own;"
                " launch with torchrun instead"
            )
    missing = [name for name in ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT") if not os.environ.get(name)]
    if int(size) > 1 and missing:
        raise ConfigError(
            f"the environment variable WORLD_SIZE is {size}, but {', '.join(missing)} is not set; launch with torchrun,"
            " which sets them all"
        )
    return int(size)


def _refuse_other_loops() -> None:
    """Refuse settings in the environment that would change what is computed.

    Raises:
        ConfigError: If there is one.
    """
    found = [name for name in _OTHER_LOOPS if os.environ.get(name, "false").lower() in ("1", "true", "yes", "on")]
    if os.environ.get("ACCELERATE_DYNAMO_BACKEND", "no").lower() not in ("", "no"):
        found.append("ACCELERATE_DYNAMO_BACKEND")
    if found:
        raise ConfigError(
            f"{', '.join(found)}: set in the environment (by accelerate config?), but the config alone decides how a run"
            " trains; unset it, or launch with torchrun"
        )


@functools.cache
def _end_with_launcher() -> None:
    """End this process as SIGTERM would, with its step saved, when the launcher dies alone."""
    when_parent_ends(lambda: os.kill(os.getpid(), signal.SIGTERM))
