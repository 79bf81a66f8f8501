"""Hooks are the functions by which a plugin brings parts.

A plugin is a module (or any object) whose functions carry :data:`ssl_dc.hookimpl` and have the names below. A package
offers it under the entry point group ``ssl_dc``. It says by ``SSL_DC_INTERFACE = "2.0"`` which version of the interface it
is written for.

Each hook is called once, without arguments. It returns a list of :class:`ssl_dc.Part` records, which name a class (or
function) and its options by import string, so that hooks import nothing heavy. If a hook raises, its plugin is left out,
with the reason in ``ssl-dc plugins list``, and everything else works.

What a record names, its target, is imported when a run chooses the part, and called with the arguments given below. If it
cannot do what the options ask for, it raises :class:`ssl_dc.ConfigError` with one readable message.
"""

from __future__ import annotations

import textwrap

import pluggy

from ssl_dc.plugins.kinds import KINDS, Kind
from ssl_dc.plugins.parts import Part

PROJECT = "ssl_dc"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)
"""Marks a function of a plugin as the implementation of the hook that it is named for."""


def hook_specifications() -> type:
    """The specifications that pluggy checks plugins by: a function for each kind of part, with the name of its hook."""

    def specification() -> list[Part]:
        raise NotImplementedError

    return type("HookSpecifications", (), {kind.hook: hookspec(specification) for kind in KINDS.values()})


def hook_documentation(kind: Kind) -> str:
    """The documentation of the hook of a kind, in docstring markup."""
    if kind.options is None:
        options = "It has no options: the record's ``options`` is None."
    else:
        options = f"Its options derive from :class:`ssl_dc.{kind.options.partition(':')[2]}`."
    contract = textwrap.fill(kind.contract, width=120, break_long_words=False, break_on_hyphens=False)
    return f"{kind.brings}.\n\n{contract}\n\n{options}"
