"""Two processes that train together, on the CPU: started once, when a check first asks for them, and used by all."""

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
from typing import Any, NamedTuple, TypeVar

import torch

from ssl_dc.testing.check import ConformanceError

WORLD = 2
ANSWER_SECONDS = 180.0
"""How long both may take to answer, the time to start included, and how long one waits for the other meanwhile."""
GRACE_SECONDS = 2.0
"""How long one may take to end after the other has failed; it may wait for it in vain."""

T = TypeVar("T")


def in_two_processes(function: Callable[..., T], *arguments: Any) -> list[T]:
    """What a function returns in each of two processes that are joined by torch.distributed (gloo).

    Args:
        function: Defined in a module; called as ``function(*arguments, rank=RANK)``.
        *arguments: Picklable; a part's module is imported anew in each process.

    Returns:
        One answer for each process, in the order of their ranks.

    Raises:
        ConformanceError: If it raises in one of them, or they do not answer; both are then ended.
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
    """What a process sends back: a value, or what it died of."""

    value: Any
    error: str | None


class _Pair:
    """Two waiting processes, and the lines to them."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
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
        """The answers of both; if one fails, the other has little time to end too."""
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
                seen = "; ".join(f"process {rank}: {error}" for rank, error in failed.items()) or "nothing"
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

    def _last_words(self, rank: int) -> str:
        text = (Path(self.folder.name) / f"{rank}.log").read_text(errors="replace")
        return text.strip().rpartition("\n")[2] or "none"

    def end(self) -> None:
        """End both, whatever they do."""
        for process in self.processes:
            process.kill()
            process.join()
        self.folder.cleanup()


@cache
def _pair() -> _Pair:
    """The processes of this process."""
    return _Pair()


def _serve(rank: int, folder: str, line: Connection) -> None:
    """What each process does: answer until the line ends."""
    # what torch and the part say meanwhile is of no use to who reads the report, unless the process dies of it
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
