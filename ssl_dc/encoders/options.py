"""Options of the built-in encoders."""

from __future__ import annotations

from typing import Literal

from ssl_dc.parts import PartOptions


class SharedEncoderOptions(PartOptions):
    """Options of the encoder ``shared``, which has none."""

    name: Literal["shared"] = "shared"


class DoubleEncoderOptions(PartOptions):
    """Options of the encoder ``double``, which has none."""

    name: Literal["double"] = "double"
