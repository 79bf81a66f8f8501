"""What can go wrong for a user, as exceptions that read as one message and carry the exit status."""

from __future__ import annotations

import signal


class SslDcError(Exception):
    """Base of every error that a user can cause and mend; its text is the whole message.

    Attributes:
        exit_status: What the command line exits with: 2 for a wrong call or config, 1 for a failure while running.
    """

    exit_status: int = 1


class ConfigError(SslDcError):
    """A config, option or combination of parts that cannot be run; raised before any work is done."""

    exit_status = 2


class PluginError(ConfigError):
    """A part or plugin that is not there, cannot be built, or breaks the contract of its kind; with the reason."""


class DataError(ConfigError):
    """A data set that is missing, empty or unreadable."""


class RunError(SslDcError):
    """A run that failed, or a run folder that cannot be used."""


class PartError(RunError):
    """A part that raised an exception, its cause, while a run was under way; the message names the part."""


class Stopped(SslDcError):  # noqa: N818  # nothing went wrong
    """A training that ended because it was asked to; what was done is saved.

    Attributes:
        signal: The signal that asked.
        exit_status: 128 and its number, as shells have it: 130 for SIGINT, 143 for SIGTERM.
    """

    def __init__(self, message: str, number: int) -> None:
        super().__init__(message)
        self.signal = signal.Signals(number)
        self.exit_status = 128 + number


class Terminated(SystemExit):  # nothing went wrong
    """SIGTERM came where nothing is left to save: this process ends at once, with status 143."""


class OldNameWarning(FutureWarning):
    """A setting was given by a name that the next minor release does not know."""


class SlowerWarning(UserWarning):
    """Something works, but more slowly than it could; the text says why."""


def is_lack_of_memory(error: BaseException) -> bool:
    """Whether Python or torch could not get memory. Torch has no exception of its own for that on a CPU."""
    text = str(error)
    return isinstance(error, MemoryError) or "allocate memory" in text or "out of memory" in text
