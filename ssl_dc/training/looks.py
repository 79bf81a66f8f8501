"""Looks at an encoder while it is trained."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ssl_dc.encoders.base import Encoder


@dataclass(frozen=True)
class Looks:
    """What looks at the encoder between steps. It must not change the encoder.

    Attributes:
        every: Steps between two looks. There is one after the last step, too.
        look: Called with the encoder and the number of steps taken, in every process of a launch. Gives named numbers.
    """

    every: int
    look: Callable[[Encoder, int], Mapping[str, float]]
