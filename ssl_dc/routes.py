"""The two ways through an encoder."""

from __future__ import annotations

from enum import Enum


class Route(str, Enum):
    """How a view goes through the encoder; handed down explicitly from the loop to every gate and norm layer.

    A constant to ``torch.compile`` and ``torch.export``, so that each route is a graph of its own.
    """

    DENSE = "dense"
    GATED = "gated"

    def __str__(self) -> str:
        return self.value
