"""What every step of a plan has."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, eq=False)
class Step:
    """One computation.

    Attributes:
        output: Name of the value that it computes. A value has one step, or two of which one runs for each image.
        when: Name of a branch site; the step runs only for images whose mask there is open. None: it always runs.
        unless: Name of a branch site; the step runs only for images whose mask there is shut. None: it always runs.
    """

    output: str
    when: str | None = None
    unless: str | None = None

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the values that the step reads."""
        raise NotImplementedError
