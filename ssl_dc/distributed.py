"""The global batch: gathering over processes with a gradient, and mean values for reports."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from ssl_dc.errors import RunError

_BROKEN_CONNECTION = re.compile(r"gloo|Connection (closed|reset|refused)|Broken pipe", re.IGNORECASE)
"""What the message of a failed exchange is known by, where torch has no exception of its own for it."""


def world_size() -> int:
    """Number of processes that train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """This process's number among them, from 0."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


class _GatherBatch(torch.autograd.Function):
    """Concatenate (N, ...) tensors of all processes; the gradient is the sum over processes of this process's rows.

    With every process computing the same global loss and DDP averaging parameter gradients, the result is exactly the
    gradient of one process with the whole batch.
    """

    @staticmethod
    def forward(ctx: Any, local: Tensor) -> Tensor:
        parts = [torch.empty_like(local) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, local.contiguous())
        ctx.rows = local.shape[0]
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> Tensor:
        total = grad_outputs[0].contiguous().clone()
        dist.all_reduce(total)
        first = dist.get_rank() * ctx.rows
        return total[first : first + ctx.rows]


def gather_batch(local: Tensor) -> Tensor:
    """The global batch (world * N, ...) of a tensor (N, ...), in process order, with gradients; all N must be equal."""
    if world_size() == 1:
        return local
    gathered: Tensor = _GatherBatch.apply(local)
    return gathered


def local_rows(gathered: Tensor, rows: int) -> Tensor:
    """The ``rows`` rows of a global batch that this process contributed."""
    return gathered[rank() * rows : (rank() + 1) * rows]


@contextmanager
def peer_failures() -> Iterator[None]:
    """Tell what happened where another process of the launch has ended in the middle of an exchange.

    Raises:
        RunError: If one has.
    """
    try:
        yield
    except RuntimeError as error:
        if world_size() == 1 or not (isinstance(error, dist.DistError) or _BROKEN_CONNECTION.search(str(error))):
            raise
        raise RunError(
            "another process of this launch has ended, and this one cannot go on without it; the other says why"
        ) from error


def mean_over_processes(value: Tensor) -> Tensor:
    """The mean of a tensor over all processes, without a gradient."""
    value = value.detach().clone()
    if world_size() > 1:
        dist.all_reduce(value)
        value /= world_size()
    return value
