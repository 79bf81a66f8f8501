"""Self-supervised pre-training of one encoder that is a dense and a gated network at once.

The face of the library. Its names stand in ``__init__.pyi``, each with the module that it comes from, and are imported when
they are first used, so that ``import ssl_dc`` costs nothing.
"""

from __future__ import annotations

__version__ = "0.1.0"


def _public_names() -> dict[str, str]:
    """Each public name and its module, from the lines ``from MODULE import NAME as NAME`` of the stub."""
    with open(f"{__path__[0]}/__init__.pyi", encoding="utf-8") as stub:
        imports = [line.split() for line in stub if line.startswith("from ")]
    return {name: module for _, module, _, name, _, _ in imports}


_MODULES = _public_names()

__all__ = sorted(_MODULES)


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module 'ssl_dc' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_MODULES])
