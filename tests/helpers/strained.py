"""A call of the command line in a process of its own, with limits, watched for all that must never happen."""

from __future__ import annotations

import faulthandler
import hashlib
import os
import resource
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from ssl_dc.cli import main
from ssl_dc.cli.messages import UNEXPECTED

PROCESSOR_SECONDS = 60
"""Time of one processor that a call may take."""
IDLE_SECONDS = 60
"""Seconds without a moment of work, after which a call waits for something that does not come."""
MEMORY = 24 * 2**30
"""Bytes of address space that a call may take."""


class Ended(NamedTuple):
    """How a call ended.

    Attributes:
        status: Exit status; below 0 the signal that ended it.
        out: Standard output.
        err: Standard error.
        hung: Whether it had to be killed.
    """

    status: int
    out: str
    err: str
    hung: bool


def strained(words: Sequence[str], folder: Path, fresh: bool = False) -> Ended:
    """``ssl-dc WORDS`` in a folder, in a child of this process.

    Standard output and error go to files beside the folder.

    Args:
        words: The words of the command line.
        folder: The working directory of the call.
        fresh: Whether a new interpreter is started. Otherwise the child is a copy of this one, which has imported torch.
    """
    out, err = folder.parent / "out", folder.parent / "err"
    child = os.fork()
    if child == 0:
        status = 99
        try:
            status = _in_child(words, folder, out, err, fresh)
        finally:
            os._exit(status)
    hung, (status, _) = _waited(child)
    return Ended(os.waitstatus_to_exitcode(status), out.read_text(errors="replace"), err.read_text(errors="replace"), hung)


def _in_child(words: Sequence[str], folder: Path, out: Path, err: Path, fresh: bool) -> int:
    faulthandler.disable()  # pytest has it on, for itself
    os.setpgid(0, 0)
    os.chdir(folder)
    for path, number in ((Path(os.devnull), 0), (out, 1), (err, 2)):
        flags = os.O_RDONLY if number == 0 else os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        os.dup2(os.open(path, flags), number)
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115  # pytest has put its own there
    sys.stderr = open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    used = sum(os.times()[:2])
    resource.setrlimit(resource.RLIMIT_CPU, (int(used) + PROCESSOR_SECONDS, resource.RLIM_INFINITY))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGXCPU, signal.SIG_DFL)
    if fresh:
        os.execv(sys.executable, [sys.executable, "-m", "ssl_dc", *words])
    try:
        main(list(words), prog_name="ssl-dc")
        status = 0
    except SystemExit as ended:
        status = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:
        import traceback

        traceback.print_exc()
        status = 98
    with suppress(OSError):
        sys.stdout.flush()
        sys.stderr.flush()
    return status


def _waited(child: int) -> tuple[bool, tuple[int, float]]:
    """Whether it had to be killed; its status and the processor time that it took."""
    worked, since, pause = -1.0, time.monotonic(), 0.005
    while True:
        pid, status, usage = os.wait4(child, os.WNOHANG)
        if pid:
            with suppress(ProcessLookupError):
                os.killpg(child, signal.SIGKILL)  # what it may have left behind
            return False, (status, usage.ru_utime)
        now = time.monotonic()
        if (busy := _worked(child)) != worked:
            worked, since = busy, now
        if now - since > IDLE_SECONDS:
            with suppress(ProcessLookupError):
                os.killpg(child, signal.SIGKILL)
            _, status, usage = os.wait4(child, 0)
            return True, (status, usage.ru_utime)
        time.sleep(pause)
        pause = min(0.1, pause * 1.2)


def _worked(pid: int) -> float:
    """Clock ticks that a process and its children worked."""
    with suppress(OSError, ValueError, IndexError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return float(sum(map(int, fields[11:15])))
    return 0.0


def faults(ended: Ended) -> list[str]:
    """What must never happen, and did."""
    found = []
    if ended.hung:
        found.append("it hung")
    if ended.status < 0:
        found.append(f"signal {signal.Signals(-ended.status).name}")
    elif ended.status not in (0, 1, 2):
        found.append(f"status {ended.status}")
    said = ended.out + ended.err
    if "Traceback (most recent call last)" in said or UNEXPECTED in said:
        found.append("a traceback, or an error that nobody has foreseen")
    if ended.status in (1, 2) and not any(line.startswith(("ssl-dc: ", "Error: ")) for line in ended.err.splitlines()):
        found.append("no message")
    if "\x1b" in said:
        found.append("an escape sequence")
    if len(ended.err) > 20_000:
        found.append("a message without end")
    return found


def fingerprint(folder: Path) -> str:
    """Of all that a folder holds: names, kinds, contents."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        digest.update(f"{path.relative_to(folder)}\0".encode("utf-8", "surrogateescape"))
        if path.is_symlink():
            digest.update(os.readlink(path).encode("utf-8", "surrogateescape"))
        elif path.is_file():
            digest.update(path.read_bytes())
    return digest.hexdigest()
