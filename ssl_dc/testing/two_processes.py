"""Two processes that train together on the CPU. They start when a check first asks for them, and serve all checks."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import sys
import tempfile
from collections.abc import Callable
from datetime import timedelta
from functools import cache
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import torch

from ssl_dc.testing.check import ConformanceError

if TYPE_CHECKING:
    from multiprocessing.context import ForkServerContext, SpawnContext  # Windows has but one of them

WORLD = 2
ANSWER_SECONDS = 180.0
"""Seconds in which both must answer, their start included, and for which one waits for the other."""
GRACE_SECONDS = 2.0
"""Seconds in which one must end after the other has failed; it may be waiting for the other."""

T = TypeVar("T")


def in_two_processes(function: Callable[..., T], *arguments: Any) -> list[T]:
    """Call a function in each of two processes that torch.distributed (gloo) joins, and give what both return.

    Args:
        function: A function of a module, called as ``function(*arguments, rank=RANK)``.
        *arguments: Picklable. Each process imports the modules of parts anew.

    Returns:
        One answer for each process, in the order of their ranks.

    Raises:
        ConformanceError: If it raises in one of them, or one does not answer. Both are then ended.
    """
    pair = _pair()
    try:
        answers = pair.ask(function, arguments)
    except BaseException:
        # one of them may still wait for the other
        pair.end()
        _pair.cache_clear()
        raise
    for rank, answer in enumerate(answers):
        if answer.error is not None:
            raise ConformanceError(f"expected an answer from process {rank} of two, saw: {answer.error}")
    return [answer.value for answer in answers]


class _Answer(NamedTuple):
    """What a process sends back: a value or an error."""

    value: Any
    error: str | None


class _Pair:
    """Two waiting processes, and the connections to them."""

    def __init__(self) -> None:
        context = _context()
        self.folder = tempfile.TemporaryDirectory()
        self.lines: list[Connection] = []
        self.processes = []
        for rank in range(WORLD):
            here, there = context.Pipe()
            process = context.Process(target=_serve, args=(rank, self.folder.name, there), daemon=True)
            process.start()
            there.close()  # so that the end of the process ends the line
            self.lines.append(here)
            self.processes.append(process)

    def ask(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> list[_Answer]:
        """The answers of both. If one fails, the other must end soon."""
        task = pickle.dumps((function, arguments))
        for line in self.lines:
            line.send((sys.path, task))
        answers: dict[int, _Answer] = {}
        seconds = ANSWER_SECONDS
        while len(answers) < WORLD:
            waiting = [line for rank, line in enumerate(self.lines) if rank not in answers]
            ready = wait(waiting, seconds)
            for rank, line in enumerate(self.lines):
                if line in ready:
                    answers[rank] = self._answer(rank)
            failed = {rank: answer.error for rank, answer in answers.items() if answer.error is not None}
            if not ready or any(not process.is_alive() for process in self.processes):
                seen = "; ".join(f"process {rank}: {error}" for rank, error in failed.items()) or self._silence()
                raise ConformanceError(f"expected answers from two processes that compute together, saw {seen}")
            seconds = GRACE_SECONDS if failed else ANSWER_SECONDS
        return [answers[rank] for rank in range(WORLD)]

    def _answer(self, rank: int) -> _Answer:
        try:
            answer: _Answer = self.lines[rank].recv()
        except EOFError:
            self.processes[rank].join()
            return _Answer(None, f"it ended without an answer; its last words: {self._last_words(rank)}")
        return answer

    def _silence(self) -> str:
        """Why no process has answered, as far as it is known."""
        for rank, process in enumerate(self.processes):
            if not process.is_alive():
                return f"process {rank} ended with exit status {process.exitcode}; its last words: {self._last_words(rank)}"
        return f"no answer within {ANSWER_SECONDS:g} seconds: the part waits for something, or this machine is very busy"

    def _last_words(self, rank: int) -> str:
        text = (Path(self.folder.name) / f"{rank}.log").read_text(errors="replace")
        return text.strip().rpartition("\n")[2] or "none"

    def end(self) -> None:
        """End both, whatever they are doing."""
        for process in self.processes:
            process.kill()
            process.join()
        self.folder.cleanup()


@cache
def _pair() -> _Pair:
    """The processes of this process."""
    return _Pair()


def _context() -> ForkServerContext | SpawnContext:
    """How they start: never as forks of this process, whose threads they would not have.

    A program that has many to start can let the server import what they need (``multiprocessing.set_forkserver_preload``).
    """
    if "forkserver" in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("forkserver")
    return multiprocessing.get_context("spawn")


def _serve(rank: int, folder: str, line: Connection) -> None:
    """What each process does: answer until the connection closes."""
    # keep what torch and the part print out of the report; it is shown only if the process dies
    with (Path(folder) / f"{rank}.log").open("wb") as log:
        for output in (1, 2):
            os.dup2(log.fileno(), output)
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo",
        init_method=f"file://{folder}/store",
        rank=rank,
        world_size=WORLD,
        timeout=timedelta(seconds=ANSWER_SECONDS),
    )
    while True:
        try:
            sys.path[:], task = line.recv()
        except EOFError:
            return
        line.send(_answer_of(task, rank))


def _answer_of(task: bytes, rank: int) -> _Answer:
    try:
        function, arguments = pickle.loads(task)  # noqa: S301  # from the process that started this one
        return _Answer(function(*arguments, rank=rank), None)
    except Exception as error:  # whatever a stranger's part raises is what the check reports
        return _Answer(None, f"{type(error).__name__}: {error}")
