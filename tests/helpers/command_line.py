"""The command line as a user calls it, in this process or in one of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from click.testing import CliRunner, Result

from ssl_dc.cli import main

REPOSITORY = Path(__file__).resolve().parents[2]

HANGS = 300
"""Seconds after which a process is taken to hang: no measure of speed, a busy machine may be slow."""


class Trained(NamedTuple):
    """A run folder, and what the process that trained it said."""

    folder: Path
    said: subprocess.CompletedProcess[str]


def call(*words: str | Path) -> Result:
    """The outcome of ``ssl-dc WORDS``, in this process. What ends in a traceback fails the test."""
    result = CliRunner().invoke(main, [str(word) for word in words], prog_name="ssl-dc")
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def successful(result: Result) -> Result:
    """The outcome of a call, which must be a success."""
    assert result.exit_code == 0, result.stderr
    return result


def done(*words: str | Path) -> str:
    """Standard output of a call that succeeds."""
    return successful(call(*words)).stdout


def parsed(*words: str | Path) -> Any:
    """The JSON document that a call with ``--json`` prints."""
    return json.loads(done(*words, "--json"))


def refused(*words: str | Path, status: int = 2) -> str:
    """Standard error of a call that is refused before anything is written below the working directory.

    The call is made in an empty folder where a test has not chosen one: other tests write below the repository meanwhile.
    """
    with in_a_folder_of_its_own():
        before = sorted(Path.cwd().rglob("*"))
        result = call(*words)
        assert sorted(Path.cwd().rglob("*")) == before
    assert result.exit_code == status, result.stderr or result.stdout
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    return result.stderr


@contextmanager
def in_a_folder_of_its_own() -> Iterator[None]:
    """Work in an empty folder, unless the working directory is another one than the repository."""
    here = Path.cwd()
    if here != REPOSITORY:
        yield
        return
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            yield
        finally:
            os.chdir(here)


def message(*words: str | Path) -> str:
    """The one line that a refused call prints."""
    text = refused(*words)
    assert text.startswith("ssl-dc: ")
    assert text.count("\n") == 1
    return text


def run_python(*words: str | Path, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    """``python WORDS`` in a process of its own, with more variables in its environment."""
    return subprocess.run(
        [sys.executable, *map(str, words)],
        capture_output=True,
        text=True,
        timeout=HANGS,
        cwd=cwd,
        env={**os.environ, **environment},
        check=False,
    )


def run_command(*words: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """``ssl-dc WORDS`` in a process of its own."""
    return run_python("-m", "ssl_dc", *words, cwd=cwd)


def run_in_two_processes(script: Path, *words: str | Path) -> subprocess.CompletedProcess[str]:
    """A script, launched by torchrun as two processes on this machine."""
    return run_python("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", script, *words)
