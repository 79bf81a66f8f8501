"""Options of the built-in norm policies."""

from __future__ import annotations

from typing import ClassVar

from ssl_dc.plugins.options import PartOptions


class SharedNormsOptions(PartOptions):
    """Options of the policy ``shared``, which has none."""

    compiles: ClassVar[bool] = True

    name: str = "shared"


class SeparateNormsOptions(PartOptions):
    """Options of the policy ``separate``, which has none."""

    compiles: ClassVar[bool] = True

    name: str = "separate"
