"""Options of the built-in encoders."""

from __future__ import annotations

from typing import ClassVar

from ssl_dc.plugins.options import PartOptions


class SharedEncoderOptions(PartOptions):
    """Options of the encoder ``shared``, which has none."""

    compiles: ClassVar[bool] = True

    name: str = "shared"


class DoubleEncoderOptions(PartOptions):
    """Options of the encoder ``double``, which has none."""

    compiles: ClassVar[bool] = True

    name: str = "double"
