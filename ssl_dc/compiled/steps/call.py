"""Operations that have no step of their own: torch computes them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ssl_dc.compiled.steps.base import Step


@dataclass(frozen=True, kw_only=True, eq=False)
class Call(Step):
    """Any other operation, which torch computes.

    Attributes:
        function: Called with the values of ``arguments``.
        arguments: Names of the values, in the order of the function's parameters.
        of_shapes: Whether it depends on the shapes of its arguments only.
        moves: Whether it only arranges the elements of its first argument anew. The other arguments are sizes.
    """

    function: Callable[..., Any]
    arguments: tuple[str, ...]
    of_shapes: bool = False
    moves: bool = False

    @property
    def inputs(self) -> tuple[str, ...]:
        """The arguments."""
        return self.arguments
