"""Stopping when asked to: a scheduler's SIGTERM, a user's Ctrl-C, heard between two steps and by all processes at once."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
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

LAST_SECONDS = 2.0
"""How long a process may take to end after the second signal, before it is ended in the midst of what it does."""

Answer = Callable[[int], None]
"""Tells the user that a signal was heard. It is called in a thread of its own."""


def answered_in_words(saving: bool) -> Answer:
    """An answer on standard error.

    Args:
        saving: Whether the step that is being taken will be saved.
    """

    def answer(number: int) -> None:
        asked, again = ("", "press Ctrl-C again") if number == signal.SIGINT else ("SIGTERM: ", "send it again")
        text = f"{asked}ending after this step{', then saving' if saving else ''}; {again} to stop now"
        with suppress(OSError, ValueError):  # standard error may be full, or closed
            print(text, file=sys.stderr, flush=True)

    return answer


class StopSignals:
    """Hears signals while it is entered; the loop asks after each step whether one came.

    The first is answered at once and remembered, so that the step can end and be saved. A second one stops at once: by
    :class:`KeyboardInterrupt` for SIGINT, :class:`ssl_dc.errors.Terminated` for SIGTERM. Python raises these only when a
    computation gives control back. If it does not in 2 seconds, then whoever handled the signal before ends the process, as
    the command line does. A signal that was ignored before stays ignored: a shell script starts its background jobs so, and
    Ctrl-C is not for them. Only the main thread of a process can hear signals; in another thread this class hears nothing.

    Args:
        answer: Tells the user of the first signal.
    """

    def __init__(self, answer: Answer | None = None) -> None:
        self.received: int | None = None
        self._answer = answer
        self._since = 0.0
        self._before: dict[int, Any] = {}
        self._ear: _Ear | None = None

    @staticmethod
    def listening() -> bool:
        """Whether an object of this class hears signals now, so that SIGTERM ends a training after its step."""
        return isinstance(getattr(signal.getsignal(signal.SIGTERM), "__self__", None), StopSignals)

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            heard = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
            self._before = {number: signal.signal(number, self._hear) for number in heard}
            self._ear = _Ear(self._answer, self._before)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._ear is not None:
            self._ear.close()
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


class _Ear:
    """A thread that is told of signals when they come.

    A handler in Python must wait until the computation that is under way gives control back, which may take minutes. The
    interpreter itself writes each signal's number into a pipe at once, and this thread reads it there.

    Args:
        answer: Tells the user of the first signal.
        before: Who handled the signals before, by number.
    """

    def __init__(self, answer: Answer | None, before: dict[int, Any]) -> None:
        self._answer, self._before = answer, before
        self._left = threading.Event()
        self._reading, self._writing = os.pipe()
        os.set_blocking(self._writing, False)
        self._fd_before = signal.set_wakeup_fd(self._writing, warn_on_full_buffer=False)
        self._thread = threading.Thread(target=self._listen, name="signals", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Hear no more."""
        self._left.set()
        signal.set_wakeup_fd(self._fd_before)
        os.write(self._writing, b"\0")
        self._thread.join(LAST_SECONDS)
        os.close(self._writing)
        if not self._thread.is_alive():
            os.close(self._reading)

    def _listen(self) -> None:
        first: float | None = None
        while number := os.read(self._reading, 1)[0]:
            if self._fd_before >= 0:
                with suppress(OSError):  # nobody may read there any more
                    os.write(self._fd_before, bytes([number]))
            if number not in SIGNALS:
                continue
            now = time.monotonic()
            if first is None:
                first = now
                if self._answer is not None:
                    self._answer(number)
            elif now - first >= ECHO_SECONDS:
                self._end_soon(number)

    def _end_soon(self, number: int) -> None:
        before = self._before[number]
        if callable(before) and before is not signal.default_int_handler and not self._left.wait(LAST_SECONDS):
            before(number, None)


def _stop_at_once(number: int) -> None:
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    raise Terminated(128 + number)


def _hear_nothing_in_children() -> None:
    with suppress(ValueError):  # forked by another than the main thread
        signal.set_wakeup_fd(-1)


if hasattr(os, "register_at_fork"):
    # A process that prepares images would else write its signals into the pipe of the process that it was forked from.
    os.register_at_fork(after_in_child=_hear_nothing_in_children)
