"""Stopping when asked to: a scheduler's SIGTERM, a user's Ctrl-C, heard between two steps and by all processes at once."""

from __future__ import annotations

import signal
import threading
import time
from types import FrameType, TracebackType
from typing import Any

import torch
from torch import Tensor

from ssl_dc.distributed import world_size
from ssl_dc.errors import Terminated

SIGNALS = (signal.SIGTERM, signal.SIGINT)
"""What is heard: a scheduler's preemption, and Ctrl-C."""

ECHO_SECONDS = 1.0
"""A signal so soon after the first is the same one again: a launcher hands on what the terminal has sent to all already."""


class StopSignals:
    """Hears signals while it is entered; the loop asks after each step whether one came.

    The first is only remembered, so that the step can end and be saved. A second one stops at once: by
    :class:`KeyboardInterrupt` for SIGINT, :class:`ssl_dc.errors.Terminated` for SIGTERM. Only the main thread of a process
    can hear signals; in another thread this class hears nothing.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._since = 0.0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._hear) for number in SIGNALS}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def agreed(self, device: torch.device) -> int | None:
        """The signal that any process has heard, the same answer in all of them; each must ask after the same step."""
        if world_size() == 1:
            return self.received
        heard: Tensor = torch.tensor(self.received or 0, device=device)
        torch.distributed.all_reduce(heard, op=torch.distributed.ReduceOp.MAX)
        return int(heard) or None

    def _hear(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002  # a handler's arguments
        now = time.monotonic()
        if self.received is None:
            self.received, self._since = number, now
        elif now - self._since >= ECHO_SECONDS:
            self._since = now  # the second one has its echoes too, which must not disturb the end
            _stop_at_once(number)


def _stop_at_once(number: int) -> None:
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    raise Terminated(128 + number)
