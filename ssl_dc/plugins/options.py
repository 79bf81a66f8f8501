"""Options: the pydantic models that a config is checked by."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field


class Strict(BaseModel):
    """Base of every config model: unknown keys are errors, values are not changed once checked."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, validate_default=True)


class PartOptions(Strict):
    """Base of the options of every part.

    Attributes:
        name: The part's name, as registered; a subclass gives it as its default. In a config it may be qualified,
            ``package:name``, where two packages bring the same name.
        recipe: Settings of other sections (dotted key to value) that choosing this part brings along. They rank above
            the defaults and below everything that a user says.
        compiles: Whether ``torch.compile`` takes the part as one graph, forward and backward: a claim that
            :mod:`ssl_dc.testing` checks.
    """

    recipe: ClassVar[Mapping[str, Any]] = {}
    compiles: ClassVar[bool] = False

    name: str = Field(description="The part, by the name under which it is registered.")
