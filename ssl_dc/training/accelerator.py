"""The Accelerator, made so that a launch that would silently do the wrong thing is refused instead."""

from __future__ import annotations

import os

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs

from ssl_dc.errors import ConfigError


def make_accelerator(precision: str) -> Accelerator:
    """An accelerator for this process's place in the launch.

    Args:
        precision: ``no``, ``fp16`` or ``bf16``.

    Raises:
        ConfigError: If the precision or the launch cannot work on this machine.
    """
    no_gpu = not torch.cuda.is_available()
    if precision == "fp16" and no_gpu:
        raise ConfigError(
            "training.precision = 'fp16': there is no GPU here, where it would stay float32; allowed: no, bf16"
        )
    launched = int(os.environ.get("WORLD_SIZE", "1"))
    # without cpu=True a launch on a machine without GPU makes separate worlds that each believe to be alone
    accelerator = Accelerator(
        mixed_precision=precision,
        cpu=launched > 1 and no_gpu,
        # a step may leave a route unused, and with it the norms and gates of that route
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],
    )
    if launched != accelerator.num_processes:
        raise ConfigError(
            f"launched as {launched} processes, but they train as {accelerator.num_processes}; launch with"
            " torchrun, or with accelerate launch on a machine with that many GPUs"
        )
    return accelerator
