"""What a plugin hands in: a light record that names a part without importing it."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field

KINDS = ("objective", "gating", "encoder", "backbone", "norm", "data", "views", "optimizer")
"""The kinds of part, which are also the config's sections for them."""


@dataclass(frozen=True)
class Part:
    """One part, as a hook returns it. Listing it imports nothing; choosing it imports ``options``, then ``target``.

    Attributes:
        name: What users write in configs and on the command line, such as ``vicreg``.
        target: Import string ``package.module:Class`` of the part; may import torch.
        options: Import string of its options, a subclass of :class:`PartOptions`; should not import torch, so that a
            config can be checked at once.
        summary: One line for listings and help.
    """

    name: str
    target: str
    options: str
    summary: str


class Strict(BaseModel):
    """Base of every config model: unknown keys are errors, values are not changed once checked."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, validate_default=True)


class PartOptions(Strict):
    """Base of the options of every part.

    Attributes:
        name: The part's name, as registered.
        recipe: Settings of other sections (dotted key to value) that choosing this part brings along. They rank above
            the defaults and below everything that a user says.
    """

    recipe: ClassVar[Mapping[str, Any]] = {}

    name: str = Field(description="The part, by the name under which it is registered.")


def import_string(target: str) -> Any:
    """Import ``package.module:attribute``.

    Raises:
        ImportError: If the module or the attribute does not exist.
    """
    module_name, _, attribute = target.partition(":")
    module = importlib.import_module(module_name)
    try:
        return getattr(module, attribute)
    except AttributeError:
        raise ImportError(f"module {module_name!r} has no {attribute!r}") from None
