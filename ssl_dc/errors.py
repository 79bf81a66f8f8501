"""Exceptions for what can go wrong for a user. The text of each is one message, and each has an exit status."""

from __future__ import annotations

import signal


class SslDcError(Exception):
    """Base of every error that a user can cause and fix. Its text is the whole message.

    Attributes:
        exit_status: Exit status of the command: 2 for a wrong call or config, 1 for a failure while running.
    """

    exit_status: int = 1


class ConfigError(SslDcError):
    """A config, option or combination of parts that cannot be run. Raised before any work is done."""

    exit_status = 2


class PluginError(ConfigError):
    """A part or plugin that is not there, cannot be built, or breaks the contract of its kind."""


class DataError(ConfigError):
    """A data set that is missing, empty or unreadable."""


class InUseError(ConfigError):
    """Another process works in a folder."""


class RunError(SslDcError):
    """A run that failed, or a run folder that cannot be used."""


class PartError(RunError):
    """A part raised an exception during a run. That exception is the cause, and the message names the part."""


class Stopped(SslDcError):  # noqa: N818  # nothing went wrong
    """A signal ended a training. The last step is saved.

    Attributes:
        signal: The signal.
        exit_status: 128 plus the number of the signal, as in shells: 130 for SIGINT, 143 for SIGTERM.
    """

    def __init__(self, message: str, number: int) -> None:
        super().__init__(message)
        self.signal = signal.Signals(number)
        self.exit_status = 128 + number


class Terminated(SystemExit):  # nothing went wrong
    """SIGTERM came and there is nothing to save. This process ends at once, with status 143."""


class OldNameWarning(FutureWarning):
    """A setting was given by an old name, which the next minor release does not accept."""


class SlowerWarning(UserWarning):
    """Something works, but more slowly than it could. The text says why."""


class DialledWarning(UserWarning):
    """A network runs at a budget that it was not trained for. The text says which."""


class CalibrationWarning(UserWarning):
    """A network in int8 runs on images of another size than it was calibrated on. The text says which."""


def is_lack_of_memory(error: BaseException) -> bool:
    """Whether Python or torch ran out of memory. On a CPU, torch raises no special exception for this."""
    text = str(error)
    return isinstance(error, MemoryError) or "allocate memory" in text or "out of memory" in text
