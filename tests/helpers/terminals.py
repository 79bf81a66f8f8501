"""The command line in a terminal: a process behind a pseudo terminal, and the screens that a person would see."""

from __future__ import annotations

import fcntl
import os
import select
import struct
import subprocess
import sys
import termios
from collections.abc import Callable, Iterator
from typing import NamedTuple

import pyte

from helpers.command_line import HANGS

ROWS = 24
DRAWN_ANEW = b"\r\x1b[2K"
"""How a drawing over the one before begins."""


class Screen(NamedTuple):
    """What stands on a terminal at one moment: its lines without trailing blanks, without the empty ones at the end."""

    lines: list[str]


class Recording(NamedTuple):
    """What a process wrote to its terminal, and how it ended."""

    written: bytes
    status: int

    def screens(self, columns: int) -> Iterator[Screen]:
        """What stood there each time that a drawing was whole, and at the end."""
        screen = pyte.Screen(columns, ROWS)
        stream = pyte.ByteStream(screen)
        for number, part in enumerate(self.written.split(DRAWN_ANEW)):
            if number:
                yield _seen(screen)
            stream.feed(DRAWN_ANEW * bool(number) + part)
        yield _seen(screen)


def _seen(screen: pyte.Screen) -> Screen:
    return Screen("\n".join(line.rstrip() for line in screen.display).rstrip("\n").split("\n"))


Keys = Callable[[bytes], bytes]
"""From all that was written so far to the keys that are pressed now."""


def record(*words: str, columns: int, keys: Keys = lambda _: b"", **environment: str) -> Recording:
    """``python WORDS`` in a terminal of a width, with a person who presses keys."""
    ours, its = os.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, columns, 0, 0))
    with subprocess.Popen(
        [sys.executable, *words],
        stdin=its,
        stdout=its,
        stderr=its,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # so that ^C is a signal
        env={**os.environ, "TERM": "xterm-256color", **environment},
    ) as process:
        os.close(its)
        written = b""
        while part := _read(ours):
            written += part
            if pressed := keys(written):
                os.write(ours, pressed)
        os.close(ours)
        return Recording(written, process.wait(HANGS))


def _read(terminal: int) -> bytes:
    """What comes next; nothing when the process has ended."""
    ready, _, _ = select.select([terminal], [], [], HANGS)
    assert ready, "the process hangs"
    try:
        return os.read(terminal, 65536)
    except OSError:  # how Linux says that nobody writes there any more
        return b""
