"""What can go wrong in a command, as one message and an exit status."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import click

from ssl_dc.errors import SslDcError

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
    except SslDcError as error:
        click.echo(f"ssl-dc: {error}", err=True)
        sys.exit(error.exit_status)
    except KeyboardInterrupt:
        click.echo(
            "ssl-dc: interrupted; a training goes on from its last resume point by: ssl-dc train --resume RUN", err=True
        )
        sys.exit(130)
    except BrokenPipeError:
        # the reader of our output went away, as with `| head`; nothing is left to say
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
