"""Options of the built-in batch-norm policies."""

from __future__ import annotations

from typing import Literal

from ssl_dc.parts import PartOptions


class SharedOptions(PartOptions):
    """Options of the policy ``shared``, which has none."""

    name: Literal["shared"] = "shared"


class SeparateOptions(PartOptions):
    """Options of the policy ``separate``, which has none."""

    name: Literal["separate"] = "separate"
