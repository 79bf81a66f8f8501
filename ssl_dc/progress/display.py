"""What every display of progress can do."""

from __future__ import annotations


class Display:
    """Shows nothing. Its subclasses show the figures that they were built with; each method says that they have changed."""

    def phase_begins(self) -> None:
        """A phase has begun."""

    def phase_ends(self) -> None:
        """The phase has ended."""

    def training_begins(self) -> None:
        """Training has begun."""

    def step_taken(self) -> None:
        """A step was taken."""

    def training_ends(self) -> None:
        """Training has ended, normally or by an error."""

    def message(self, text: str) -> None:
        """There is a message. It stays."""
