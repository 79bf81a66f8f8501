"""Turns whatever goes wrong in a command into one message and an exit status."""

from __future__ import annotations

import atexit
import functools
import gc
import os
import re
import shlex
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any, NoReturn, TypeVar

import click

from ssl_dc.errors import SslDcError, Stopped, Terminated, is_lack_of_memory
from ssl_dc.launch import is_first_process
from ssl_dc.printable import printable

F = TypeVar("F", bound=Callable[..., Any])

UNEXPECTED = "This is a fault in the code named above, not in your call."
"""The end of the message of an unexpected error."""
MOST_CALLERS = 8
"""How many callers such a message names. They are the innermost ones."""
LONGEST_TEXT = 2000
"""How many characters of the error's own text such a message shows."""


def readable_errors(command: F) -> F:
    """Decorate a command: whatever goes wrong becomes one message on standard error, with the right exit status."""

    @functools.wraps(command)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        with reported():
            return command(*args, **kwargs)

    return guarded  # type: ignore[return-value]


@contextmanager
def reported() -> Iterator[None]:
    """Turn any exception into one message on standard error and the right exit status, without a traceback."""
    try:
        yield
        sys.stdout.flush()  # flush here, so that a write error is reported
    except Stopped as stopped:
        _end_as_asked(str(stopped), stopped.signal)
    except SslDcError as error:
        _end(str(error), error.exit_status)
    except KeyboardInterrupt:
        _end_as_asked(_stopped_by(signal.SIGINT, _run_goes_on()), signal.SIGINT)
    except Terminated:
        _end_as_asked(_stopped_by(signal.SIGTERM, _run_goes_on()), signal.SIGTERM)
    except click.UsageError as error:
        said = error.format_message()
        if printable(said) == said:
            raise
        raise click.UsageError(printable(said), error.ctx) from error  # click repeats words as they were given
    except (click.ClickException, click.exceptions.Exit, click.Abort):
        raise
    except BrokenPipeError:
        # the reader of our output has gone, as with `| head`
        _drop_standard_output()
        sys.exit(1)
    except OSError as error:
        _drop_standard_output()
        where = f": {error.filename}" if error.filename else ""
        _end(f"{error.strerror or error}{where}", 1)
    except Exception as error:
        if is_lack_of_memory(error):
            text = str(error).splitlines()[0] if str(error) else "the system has no more"
            _end(f"there is not enough memory for this: {text}", 1)
        _end(unexpected(error), 1)


_GOES_ON = {
    "embed": " The same call goes on with the shards that are written",
    "grid": " The same call goes on with what is missing",
    "reproduce": " The same call goes on with what is missing",
}
"""How a command that was stopped is gone on with."""


_RESUMED = " The training goes on from its last resume point with: ssl-dc train --resume {}"


def _stopped_by(number: int, training_goes_on: str) -> str:
    name, context = signal.Signals(number).name, click.get_current_context(silent=True)
    command = (context.info_name if context else None) or "train"
    return f"stopped by {name}.{training_goes_on if command == 'train' else _GOES_ON.get(command, '')}"


def _run_goes_on() -> str:
    """How the run that this process trains, or has just trained, is gone on with; empty if it has no folder yet."""
    lock = sys.modules.get("ssl_dc.run_lock")  # a handler of signals must not import: without the module no run was held
    folder = lock.last_held_here() if lock else None
    return _RESUMED.format(shlex.quote(str(folder))) if folder else ""


def _end_as_asked(message: str, number: int) -> NoReturn:
    """End as a signal asks. Of a launch, which stops as a whole, the first process says so."""
    if not is_first_process():
        sys.exit(128 + number)
    _end(message, 128 + number)


def end_at_signals() -> None:
    """End this process at once with a message when SIGTERM or Ctrl-C comes and nothing else handles it.

    The signals do not raise exceptions: one that is raised during an import may be swallowed, or leave a library half
    imported. A training handles them itself, and first saves its step (:mod:`ssl_dc.training.stopping`).
    """
    own = os.getpid()

    def end(number: int, frame: FrameType | None) -> None:  # noqa: ARG001  # a handler's arguments
        # a process that prepares images says nothing, and of a launch the first process speaks
        if os.getpid() == own and is_first_process():
            after_echo = "\n" if os.isatty(2) else ""  # a terminal has written ^C, and progress may stand on the line
            os.write(2, f"{after_echo}ssl-dc: {_stopped_by(number, _run_goes_on())}\n".encode())
        os._exit(128 + number)

    for number, default in ((signal.SIGTERM, signal.SIG_DFL), (signal.SIGINT, signal.default_int_handler)):
        if signal.getsignal(number) is default:
            signal.signal(number, end)


def unexpected(error: Exception) -> str:
    """The message of an unexpected error, such as one of a plugin: the error, where it was raised, and the callers."""
    kind, text, frames = _of_worker(str(error)) or (
        type(error).__name__,
        str(error)[:LONGEST_TEXT],
        [(frame.filename, frame.lineno or 0, frame.name) for frame in traceback.extract_tb(error.__traceback__)],
    )
    own = [frame for frame in reversed(frames) if not _LIBRARIES.search(frame[0])] or frames[-1:]
    lines = [f"{name} ({file}:{line})" for file, line, name in own[:MOST_CALLERS]]
    where = "\n  called by ".join(lines)
    return f"{kind}: {text}\n  raised in {where}\n{UNEXPECTED}" if where else f"{kind}: {text}"


_LIBRARIES = re.compile(r"[/\\](torch|click|accelerate|functools\.py|contextlib\.py)([/\\]|$)|^<frozen")
"""Files of callers that a message leaves out, because they tell its reader nothing."""
_WORKER_FRAME = re.compile(r'^  File "(.*)", line (\d+), in (.*)$', re.MULTILINE)


def _of_worker(text: str) -> tuple[str, str, list[tuple[str, int, str]]] | None:
    """Kind, text and callers of an error that torch passes on from a process that prepares images. None for others."""
    if not re.match(r"Caught \w+ in ", text):
        return None
    frames = [(file, int(line), name) for file, line, name in _WORKER_FRAME.findall(text)]
    last = text.rstrip().splitlines()[-1]
    kind, _, said = last.partition(": ")
    return kind, said, frames


def _end(message: str, status: int) -> NoReturn:
    with suppress(OSError):  # nobody can be told, so only the exit status says it
        click.echo(f"ssl-dc: {printable(message)}", err=True)
    sys.exit(status)


def keep_standard_streams() -> None:
    """Replace standard input, output and error by the null device where they are closed.

    Otherwise the next opened file gets the number of a closed stream, and the warnings of libraries are written into it.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free number, which is this one
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115  # as long as the process lives


@functools.cache
def end_quickly() -> None:
    """Let the interpreter end without a garbage collection of torch's objects, which takes longer than many commands."""
    atexit.register(gc.freeze)


def _drop_standard_output() -> None:
    """Discard what is still buffered for standard output. Another failure at exit would print a traceback."""
    with suppress(OSError):  # it may not be a file, as inside another program
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
