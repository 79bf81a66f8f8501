"""Options of the built-in encoders."""

from __future__ import annotations

from ssl_dc.options import PartOptions


class SharedEncoderOptions(PartOptions):
    """Options of the encoder ``shared``, which has none."""

    name: str = "shared"


class DoubleEncoderOptions(PartOptions):
    """Options of the encoder ``double``, which has none."""

    name: str = "double"
