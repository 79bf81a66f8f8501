"""What every display of progress can do."""

from __future__ import annotations

from ssl_dc.progress.figures import Figures


class Display:
    """Shows nothing. Its subclasses show the figures; each method says that they have changed.

    Args:
        figures: What is shown.
    """

    def __init__(self, figures: Figures) -> None:
        self._figures = figures

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
