"""Exchange between the processes of a launch: the global batch with its gradient, means, and failures."""

from __future__ import annotations

import atexit
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from ssl_dc.errors import RunError

T = TypeVar("T")

_BROKEN_CONNECTION = re.compile(r"gloo|Connection (closed|reset|refused)|Broken pipe", re.IGNORECASE)
"""Matches the message of a failed exchange where torch raises no special exception."""


def world_size() -> int:
    """The number of processes that train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """The number of this process among them, from 0."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


class _GatherBatch(torch.autograd.Function):
    """Concatenate the (N, ...) tensors of all processes. The gradient of this process's rows is summed over all processes.

    Every process computes the same global loss, and DDP averages the gradients of the parameters. The result is exactly the
    gradient of one process with the whole batch.
    """

    @staticmethod
    def forward(ctx: Any, local: Tensor) -> Tensor:
        ctx.rows = local.shape[0]
        return of_all_processes(local.contiguous()).flatten(0, 1)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> Tensor:
        total = grad_outputs[0].contiguous().clone()
        dist.all_reduce(total)
        first = dist.get_rank() * ctx.rows
        return total[first : first + ctx.rows]


def of_all_processes(local: Tensor) -> Tensor:
    """The tensors (...) of all processes as one (world, ...), in process order, without a gradient. They are contiguous.

    For the sum of a small tensor gloo works less than in ``all_reduce``, which goes round twice.
    """
    gathered = local.new_empty((dist.get_world_size(), *local.shape))
    dist.all_gather(list(gathered.unbind()), local)
    return gathered


def gather_batch(local: Tensor) -> Tensor:
    """The global batch (world * N, ...) of a tensor (N, ...), in process order, with gradients. All N must be equal."""
    if world_size() == 1:
        return local
    gathered: Tensor = _GatherBatch.apply(local)
    return gathered


def gather_batches(parts: Sequence[Tensor]) -> list[Tensor]:
    """:func:`gather_batch` of several tensors (N, ...) of one dtype and device, in one exchange."""
    if world_size() == 1 or not parts:
        return list(parts)
    gathered = gather_batch(torch.cat([part.reshape(len(part), -1) for part in parts], dim=1))
    widths = [part[0].numel() for part in parts]
    return [
        columns.reshape(-1, *part.shape[1:]) for columns, part in zip(gathered.split(widths, dim=1), parts, strict=True)
    ]


def local_rows(gathered: Tensor, rows: int) -> Tensor:
    """The rows of a global batch that this process contributed, ``rows`` in number."""
    return gathered[rank() * rows : (rank() + 1) * rows]


@contextmanager
def peer_failures() -> Iterator[None]:
    """Report in words that another process of the launch ended during an exchange.

    Raises:
        RunError: If one did.
    """
    try:
        yield
    except RuntimeError as error:
        if world_size() == 1 or not (isinstance(error, dist.DistError) or _BROKEN_CONNECTION.search(str(error))):
            raise
        raise RunError(
            "another process of this launch has ended or was killed, and this one cannot go on without it"
        ) from error


def mean_over_processes(value: Tensor) -> Tensor:
    """The mean of a tensor over all processes, without a gradient."""
    value = value.detach().clone()
    if world_size() > 1:
        dist.all_reduce(value)
        value /= world_size()
    return value


def gather_rows(local: Tensor, rows: Sequence[Sequence[int]]) -> Tensor:
    """Put the rows of all processes together, without a gradient. Every process gets all rows.

    Args:
        local: The rows of this process (n, ...), on any device.
        rows: The numbers of each process's rows, in its order. Together they contain each number from 0 once.

    Returns:
        (total, ...), on the device of ``local``.
    """
    if world_size() == 1:
        return local[torch.argsort(torch.as_tensor(rows[0]))]
    longest = max(map(len, rows))
    # NCCL takes tensors of its own GPU only, and gloo those of the CPU. Neither takes bool.
    where = torch.device("cpu" if dist.get_backend() == "gloo" else "cuda")
    padded = local.new_zeros((longest, *local.shape[1:])).to(
        where, torch.uint8 if local.dtype is torch.bool else local.dtype
    )
    padded[: len(local)] = local
    parts = [torch.empty_like(padded) for _ in rows]
    with peer_failures():
        dist.all_gather(parts, padded)
    whole = padded.new_empty((sum(map(len, rows)), *local.shape[1:]))
    for part, numbers in zip(parts, rows, strict=True):
        whole[torch.as_tensor(numbers, device=where)] = part[: len(numbers)]
    return whole.to(local.device, local.dtype)


def broadcast_from_main(value: T) -> T:
    """What the main process gives, in every process. It is pickled."""
    held = [value]
    if world_size() > 1:
        with peer_failures():
            dist.broadcast_object_list(held, src=0)
    return held[0]


@contextmanager
def failing_together() -> Iterator[None]:
    """If the block raises in one process, it raises in all. No process waits for one that has ended.

    Raises:
        RunError: In a process whose own block did not raise. The message is that of the process that did.
    """
    raised: Exception | None = None
    try:
        yield
    except Exception as error:  # the other processes are told of any exception, and this one raises it again
        raised = error
    texts: list[str | None] = [None] * world_size()
    if world_size() > 1:
        with peer_failures():
            dist.all_gather_object(texts, None if raised is None else str(raised) or type(raised).__name__)
    if raised is not None:
        raise raised
    for number, text in enumerate(texts):
        if text is not None:
            raise RunError(f"process {number} of {world_size()} has failed: {text}")


def leave_launch() -> bool:
    """Leave the launch when all its processes have come this far: one that ended earlier could make another abort.

    Returns:
        Whether this is the main process, which alone writes and prints results.
    """
    main = rank() == 0
    if world_size() > 1:
        dist.barrier()
        dist.destroy_process_group()
    return main


_GLOO_THREAD = "pt_gloo_runloop"
"""The name of the threads in which gloo runs exchanges."""
_LOOKS = 3
"""A thread that is asleep at so many looks in a row, while nobody holds Python's lock, waits for nothing but work."""

_LONGEST = 1.0
"""Seconds that the end of a process waits for gloo's threads, at most."""


@atexit.register
def let_gloo_finish() -> None:
    """Wait until gloo's threads are at rest, for a second at most. It is called when the interpreter is about to end.

    Such a thread may still have to release a tensor of the last exchange, and needs Python's lock for it. If it asks for
    the lock while the interpreter ends, the process aborts (pytorch pull request 179291), and its launch fails after all
    its work is done. Where the system does not show the states of threads, there is no wait.
    """
    asleep, deadline = 0, time.monotonic() + _LONGEST
    while asleep < _LOOKS and time.monotonic() < deadline:
        states = _gloo_states()
        if not states:
            return
        asleep = asleep + 1 if states == {"S"} else 0
        time.sleep(0.001)  # lets go of Python's lock


def _gloo_states() -> set[str]:
    """The states of gloo's threads, as Linux names them: R runs, or would if a core were free; S sleeps."""
    states = set()
    for thread in Path("/proc/self/task").glob("*/stat"):
        with suppress(OSError):  # the thread has just ended
            name, _, rest = thread.read_text().partition(" (")[2].rpartition(") ")
            if name == _GLOO_THREAD:
                states.add(rest[0])
    return states
