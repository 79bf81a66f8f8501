"""The record by which a plugin names a part without importing it."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any

INTERFACE = "2.0"
"""Version of the hooks, records and base classes that plugins are written for. docs/plugins.md says what it promises."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """One part, as a hook returns it.

    Listing parts imports nothing. Choosing one imports its ``options``, then its ``target``.

    Attributes:
        name: What users write in configs and on the command line, such as ``vicreg``: a letter, then letters, digits,
            ``_``, ``-`` and ``.``.
        target: Import string ``package.module:Class`` of the part. The module may import torch.
        summary: One line for listings and help.
        options: Import string of its options, a subclass of :class:`ssl_dc.PartOptions`. The module should not import
            torch, so that a config can be checked at once. Commands and watchers have no options.
    """

    name: str
    target: str
    summary: str
    options: str | None = None


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
