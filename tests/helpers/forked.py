"""Python programs in processes of their own that need not import torch and ssl_dc, which takes each seconds.

A server imports them once, and forks a process for each program. Tests of starting and launching, and those that wait for
signals, use :mod:`helpers.command_line`, which starts an interpreter and torchrun as a user does.
"""

from __future__ import annotations

import atexit
import io
import multiprocessing
import multiprocessing.connection
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from helpers.command_line import HANGS

_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload(["ssl_dc.api", "ssl_dc.testing.objective", "torchvision.transforms.v2", "accelerate"])


def run_forked(program: str, *words: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """The outcome of ``python -c PROGRAM WORDS``, with more variables in its environment."""
    return _run(program, words, [environment])


def run_two_forked(program: str, *words: str | Path) -> subprocess.CompletedProcess[str]:
    """The outcome of ``python -c PROGRAM WORDS`` as two processes that know each other, as torchrun would tell them."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    launch = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    return _run(program, words, [{**launch, "RANK": rank, "LOCAL_RANK": rank} for rank in "01"])


def _run(
    program: str, words: Sequence[str | Path], environments: Sequence[Mapping[str, str]]
) -> subprocess.CompletedProcess[str]:
    """The outcome of a process for each environment; the first that fails ends the others."""
    argv = ["-c", *map(str, words)]
    with tempfile.TemporaryDirectory() as folder:
        output, error = Path(folder, "stdout"), Path(folder, "stderr")
        processes = [
            _SERVER.Process(target=_become, args=(program, argv, environment, output, error))
            for environment in environments
        ]
        for process in processes:
            process.start()
        running = {process.sentinel: process for process in processes}
        while running and not any(process.exitcode for process in processes):
            ended = multiprocessing.connection.wait(list(running), HANGS)
            if not ended:
                break
            for sentinel in ended:
                running.pop(sentinel).join()
        hang = bool(running) and not any(process.exitcode for process in processes)
        for process in running.values():
            process.kill()
            process.join()
        if hang:
            raise subprocess.TimeoutExpired(argv, HANGS, output.read_text(), error.read_text())
        status = next((process.exitcode for process in processes if process.exitcode), 0)
        return subprocess.CompletedProcess(argv, status, output.read_text(), error.read_text())


def _become(program: str, argv: list[str], environment: Mapping[str, str], output: Path, error: Path) -> None:
    """Run a program in this process, as an interpreter would that was started for it."""
    os.environ.update(environment)
    for stream, path in ((1, output), (2, error)):
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(file, stream)
        os.close(file)
    for text in (sys.stdout, sys.stderr):  # a line in one piece, so that two processes do not write into each other's
        if isinstance(text, io.TextIOWrapper):
            text.reconfigure(write_through=False, line_buffering=True)
    sys.argv = argv
    try:
        exec(compile(program, "<program>", "exec"), {"__name__": "__main__"})
    finally:
        atexit._run_exitfuncs()
