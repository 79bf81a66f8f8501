"""Types of numeric options."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any, ClassVar

import click


class FiniteRange(click.FloatRange):
    """A finite number in a range. ``click.FloatRange`` lets NaN pass, since NaN compares as neither below nor above."""

    name = "finite number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """The number.

        Raises:
            click.BadParameter: If it is not a finite number in the range.
        """
        number: float = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is not a finite number.", param, ctx)
        return number


class Milliseconds(click.ParamType):  # type: ignore[type-arg]  # generic only to type checkers
    """A time above 0 with its unit, such as ``2ms``, ``0.5 s`` or ``800us``; the value is in milliseconds."""

    name = "time"
    units: ClassVar[Mapping[str, float]] = {"s": 1000.0, "ms": 1.0, "us": 0.001}

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The milliseconds of a text; a number as it is."""
        if not isinstance(value, str):
            return value
        match = re.fullmatch(r"\s*([\d.]+(?:e-?\d{1,3})?)\s*(ms|us|s)\s*", value)
        try:
            milliseconds = float(match[1]) * self.units[match[2]] if match else 0.0
        except ValueError:
            milliseconds = 0.0
        if not 0 < milliseconds < math.inf:
            self.fail(f"{value!r} is no time above 0 with its unit; write 2ms, 500us or 0.5s", param, ctx)
        return milliseconds
