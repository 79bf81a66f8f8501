"""Discovery of plugins, and the registry of the parts they bring.

Plugins come from installed distributions (entry point group ``ssl_dc``), the built-in parts included. Each is loaded on
its own: one that is broken is left out and remembered with its reason, and everything else works.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from typing import Any

import pluggy

from ssl_dc import hookspecs
from ssl_dc.errors import PluginError
from ssl_dc.parts import Part, PartOptions, import_string

BUILT_IN = "ssl-dc"
"""The distribution whose parts cannot be replaced by another's."""

HOOK_OF_KIND = {
    "objective": "ssl_dc_objectives",
    "gating": "ssl_dc_gatings",
    "encoder": "ssl_dc_encoders",
    "backbone": "ssl_dc_backbones",
    "norm": "ssl_dc_norms",
    "data": "ssl_dc_data",
    "views": "ssl_dc_views",
    "optimizer": "ssl_dc_optimizers",
}

LABEL = {
    "objective": "objective",
    "gating": "gating scheme",
    "encoder": "encoder",
    "backbone": "backbone",
    "norm": "batch-norm policy",
    "data": "data set",
    "views": "views recipe",
    "optimizer": "optimiser",
}


@dataclass(frozen=True)
class Registered:
    """A part with its provenance."""

    kind: str
    part: Part
    distribution: str
    version: str

    def options_model(self) -> type[PartOptions]:
        """The pydantic model of the part's options.

        Raises:
            PluginError: If it cannot be imported or is not a :class:`ssl_dc.PartOptions`.
        """
        model = self._import(self.part.options)
        if not (isinstance(model, type) and issubclass(model, PartOptions)):
            raise PluginError(
                f"{LABEL[self.kind]} {self.part.name!r} of {self.distribution}: its options, {self.part.options!r}, are "
                "not a subclass of ssl_dc.PartOptions"
            )
        return model

    def target(self) -> Any:
        """The part itself: the class (or function) that the record names.

        Raises:
            PluginError: If it cannot be imported.
        """
        return self._import(self.part.target)

    def _import(self, target: str) -> Any:
        try:
            return import_string(target)
        except Exception as error:  # a stranger's module may raise anything while it is imported
            raise PluginError(
                f"{LABEL[self.kind]} {self.part.name!r} of {self.distribution} {self.version} cannot be loaded from "
                f"{target!r}: {type(error).__name__}: {error}"
            ) from error


@dataclass(frozen=True)
class Broken:
    """A plugin, or one part of it, that was left out, and why."""

    plugin: str
    distribution: str
    version: str
    reason: str


@dataclass(frozen=True)
class Plugin:
    """Something that can be registered: a name, where it comes from, and how to get its namespace."""

    name: str
    distribution: str
    version: str
    entry_point: metadata.EntryPoint


def installed_plugins() -> list[Plugin]:
    """Every entry point of the group ``ssl_dc``, the built-in ones first, then by distribution and name."""
    found = [
        Plugin(
            name=entry_point.name,
            distribution=entry_point.dist.name if entry_point.dist else "unknown",
            version=entry_point.dist.version if entry_point.dist else "unknown",
            entry_point=entry_point,
        )
        for entry_point in metadata.entry_points(group=hookspecs.PROJECT)
    ]
    return sorted(found, key=lambda plugin: (plugin.distribution != BUILT_IN, plugin.distribution, plugin.name))


class Registry:
    """All parts, by kind and name."""

    def __init__(self, plugins: Iterable[Plugin]) -> None:
        self.broken: list[Broken] = []
        self._parts: dict[tuple[str, str], Registered] = {}
        self._manager = pluggy.PluginManager(hookspecs.PROJECT)
        self._manager.add_hookspecs(hookspecs)
        for plugin in plugins:
            try:
                self._add(plugin)
            except (Exception, SystemExit) as error:  # whatever a stranger's plugin raises, the others must go on
                self._leave_out(plugin, f"{type(error).__name__}: {error}")

    def names(self, kind: str) -> list[str]:
        """Names of the parts of a kind, sorted."""
        return sorted(name for part_kind, name in self._parts if part_kind == kind)

    def all(self) -> Iterator[Registered]:
        """Every part, by kind and name."""
        yield from (self._parts[key] for key in sorted(self._parts))

    def find(self, kind: str, name: str) -> Registered:
        """The part of that kind and name.

        Raises:
            PluginError: If there is none; the message lists those there are, the nearest first, and any plugin that
                was left out.
        """
        if not isinstance(name, str):
            raise PluginError(f"{LABEL[kind]}: a name is text, not {name!r}; there are: {', '.join(self.names(kind))}.")
        if (kind, name) in self._parts:
            return self._parts[kind, name]
        names = self.names(kind)
        near = difflib.get_close_matches(str(name), names, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        out = "".join(f"\n  left out: {b.plugin} of {b.distribution}: {b.reason}" for b in self.broken)
        raise PluginError(f"unknown {LABEL[kind]} {name!r}; there are: {', '.join(names)}.{hint}{out}")

    def _add(self, plugin: Plugin) -> None:
        namespace = plugin.entry_point.load()
        self._manager.register(namespace, name=f"{plugin.distribution}:{plugin.name}")
        try:
            self._manager.check_pending()
        except pluggy.PluginValidationError:
            # else the hook that nothing specifies would be held against every later plugin as well
            self._manager.unregister(namespace)
            raise
        for kind, hook in HOOK_OF_KIND.items():
            for implementation in getattr(self._manager.hook, hook).get_hookimpls():
                if implementation.plugin is namespace:
                    for part in implementation.function():
                        self._add_part(plugin, kind, part)

    def _add_part(self, plugin: Plugin, kind: str, part: Part) -> None:
        if not isinstance(part, Part):
            raise TypeError(f"{HOOK_OF_KIND[kind]} must return a list of ssl_dc.Part, not of {type(part).__name__}")
        taken = self._parts.get((kind, part.name))
        if taken is not None:
            self._leave_out(plugin, f"{LABEL[kind]} {part.name!r} is already there, from {taken.distribution}")
            return
        self._parts[kind, part.name] = Registered(kind, part, plugin.distribution, plugin.version)

    def _leave_out(self, plugin: Plugin, reason: str) -> None:
        self.broken.append(Broken(plugin.name, plugin.distribution, plugin.version, reason))


@cache
def registry() -> Registry:
    """The registry of this process, built when first asked for."""
    return Registry(installed_plugins())
