"""What can go wrong in a command, as one message and an exit status."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, NoReturn, TypeVar

import click

from ssl_dc.errors import SslDcError
from ssl_dc.printable import printable

F = TypeVar("F", bound=Callable[..., Any])


def readable_errors(command: F) -> F:
    """Turn what a user can mend into one message on standard error and the right exit status."""

    @functools.wraps(command)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        with reported():
            return command(*args, **kwargs)

    return guarded  # type: ignore[return-value]


@contextmanager
def reported() -> Iterator[None]:
    """Turn what a user can mend into one message on standard error and the right exit status."""
    try:
        yield
        sys.stdout.flush()  # what cannot be written is to be known while it can be told
    except SslDcError as error:
        _end(str(error), error.exit_status)
    except KeyboardInterrupt:
        _end("interrupted; a training goes on from its last resume point by: ssl-dc train --resume RUN", 130)
    except BrokenPipeError:
        # the reader of our output went away, as with `| head`; nothing is left to say
        _drop_standard_output()
        sys.exit(1)
    except OSError as error:
        _drop_standard_output()
        where = f": {error.filename}" if error.filename else ""
        _end(f"{error.strerror or error}{where}", 1)
    except (MemoryError, RuntimeError) as error:
        if not _is_lack_of_memory(error):
            raise
        _end(
            f"there is not enough memory for this: {str(error).splitlines()[0] if str(error) else 'no more is to be had'}",
            1,
        )


def _end(message: str, status: int) -> NoReturn:
    click.echo(f"ssl-dc: {printable(message)}", err=True)
    sys.exit(status)


def _drop_standard_output() -> None:
    """Let what is still to be written to it go nowhere: another failure at exit would bring a traceback."""
    with suppress(OSError):  # where it is no file at all, as inside another program
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _is_lack_of_memory(error: Exception) -> bool:
    """Whether torch (which has no exception of its own for it on a CPU) or Python could not get memory."""
    text = str(error)
    return isinstance(error, MemoryError) or "allocate memory" in text or "out of memory" in text
