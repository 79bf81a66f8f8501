"""The registry of the parts that plugins bring.

Each plugin is loaded on its own, built-in ones too. A broken plugin is left out, the reason is kept, and everything else
works.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import pluggy

from ssl_dc.errors import PluginError, Terminated
from ssl_dc.plugins.discovery import BUILT_IN, Plugin, chosen_plugins
from ssl_dc.plugins.hookspecs import PROJECT, hook_specifications
from ssl_dc.plugins.kinds import KINDS, Kind
from ssl_dc.plugins.parts import INTERFACE, Part, import_string

if TYPE_CHECKING:
    from ssl_dc.plugins.options import PartOptions

_NAME = re.compile(r"[A-Za-z][\w.-]*")
MOST_SUGGESTED = 3
"""How many names a message suggests for a wrong one."""


@dataclass(frozen=True)
class Registered:
    """A part, and the distribution that it comes from."""

    kind: str
    part: Part
    distribution: str
    version: str

    @property
    def qualified_name(self) -> str:
        """``package:name``: tells parts of the same name from different packages apart."""
        return f"{self.distribution}:{self.part.name}"

    def options_model(self) -> type[PartOptions]:
        """The pydantic model of the part's options.

        Raises:
            PluginError: If it cannot be imported or is not a subclass of the options of its kind.
        """
        kind = KINDS[self.kind]
        if self.part.options is None or kind.options is None:
            raise PluginError(f"{self} has no options, which a {kind.label} must have")
        model = self._import(self.part.options)
        base: type[PartOptions] = import_string(kind.options)
        if not (isinstance(model, type) and issubclass(model, base)):
            raise PluginError(f"{self}: its options, {self.part.options!r}, are not a subclass of ssl_dc.{base.__name__}")
        return model

    def options(self, values: Mapping[str, Any]) -> PartOptions:
        """The part's options with some values, checked. They bear the part's name.

        Args:
            values: What is set, by the names of the options. The others have their defaults.

        Raises:
            PluginError: If the options cannot be imported, refuse a default of their own, or refuse the part's name.
            pydantic.ValidationError: If a value is wrong.
        """
        from pydantic import ValidationError  # where no option is checked, pydantic is not needed

        model = self.options_model()
        try:
            return model.model_validate({**values, "name": self.part.name})
        except ValidationError as error:
            for detail in error.errors(include_url=False):
                option = str(detail["loc"][0]) if detail["loc"] else ""
                own = option == "name" or (option in model.model_fields and option not in values)
                if own and detail["type"] != "missing":
                    raise PluginError(f"{self}: {_own_fault(option, detail['input'], detail['msg'])}") from error
            raise
        except Terminated:
            raise
        except (Exception, SystemExit) as error:  # a check of the options may raise anything
            raise PluginError(f"{self}: its options cannot be checked: {type(error).__name__}: {error}") from error

    def target(self) -> Any:
        """The class or function that the record names.

        Raises:
            PluginError: If it cannot be imported.
        """
        return self._import(self.part.target)

    def __str__(self) -> str:
        return f"{KINDS[self.kind].label} {self.part.name!r} of {self.distribution} {self.version}".rstrip()

    def _import(self, target: str) -> Any:
        try:
            return import_string(target)
        except Terminated:
            raise
        except (Exception, SystemExit) as error:  # a plugin's module may raise anything while it is imported
            raise PluginError(f"{self} cannot be loaded from {target!r}: {type(error).__name__}: {error}") from error


@dataclass(frozen=True)
class Broken:
    """A plugin, or one part of it, that was left out, with the reason."""

    plugin: str
    distribution: str
    version: str
    reason: str


class Registry:
    """All parts, by kind and name.

    Attributes:
        broken: The plugins and parts that were left out.

    Args:
        plugins: The plugins to load, in this order.
    """

    def __init__(self, plugins: Iterable[Plugin]) -> None:
        self.broken: list[Broken] = []
        self._parts: dict[tuple[str, str], list[Registered]] = {}
        self._manager = pluggy.PluginManager(PROJECT)
        self._manager.add_hookspecs(hook_specifications())
        for plugin in plugins:
            try:
                self._add(plugin)
            except PluginError as error:  # says all that there is to say
                self._leave_out(plugin, str(error))
            except Terminated:
                raise
            except (Exception, SystemExit) as error:  # a plugin may raise anything, and the others must load
                self._leave_out(plugin, f"{type(error).__name__}: {error}")

    def names(self, kind: str) -> list[str]:
        """What users may write for the parts of a kind, sorted: names, or qualified names where a name is not enough."""
        return sorted(self.written(registered) for registered in self.all() if registered.kind == kind)

    def all(self) -> Iterator[Registered]:
        """Every part, by kind and name."""
        for key in sorted(self._parts):
            yield from self._parts[key]

    def written(self, registered: Registered) -> str:
        """What users write for a part: its name, or ``package:name`` if the name alone means another part or none."""
        alone = self._by_name(registered.kind, registered.part.name) is registered
        return registered.part.name if alone else registered.qualified_name

    def has(self, kind: str, name: str) -> bool:
        """Whether :meth:`find` finds a part."""
        return isinstance(name, str) and self._lookup(kind, name) is not None

    def find(self, kind: str, name: str) -> Registered:
        """The part of a kind by its name or its qualified name ``package:name``.

        Raises:
            PluginError: If there is none, or several packages bring it. The message lists the parts that there are, the
                nearest name, and every plugin that was left out.
        """
        label = KINDS[kind].label
        if not isinstance(name, str):
            raise PluginError(f"{label}: a name is text, not {name!r}; there are: {', '.join(self.names(kind))}.")
        found = self._lookup(kind, name)
        if found is not None:
            return found
        clashing = self._parts.get((kind, name), [])
        if clashing:
            packages = " and ".join(each.distribution for each in clashing)
            choices = " or ".join(each.qualified_name for each in clashing)
            raise PluginError(f"{label} {name!r} is brought by {packages}; say which: {choices}")
        names = self.names(kind)
        part, _, rest = name.partition(":")
        hint = (
            f" If you mean an option of {part!r}, give it apart: --{label} {part} --{label}.OPTION {rest}"
            f" (ssl-dc plugins show {part})."
            if rest and part in names
            else did_you_mean(name, names)
        )
        raise PluginError(f"unknown {label} {name!r}; there are: {', '.join(names)}.{hint}{self.left_out}")

    @property
    def left_out(self) -> str:
        """The plugins that were left out, for the end of a message: a line for each, or nothing."""
        return "".join(f"\n  left out: {each.plugin} of {each.distribution}: {each.reason}" for each in self.broken)

    def meant(self, kind: str, name: str) -> list[Registered]:
        """Every part that a name may mean: the one that :meth:`find` finds, or else all that packages bring."""
        found = self._lookup(kind, name)
        return self._parts.get((kind, name), []) if found is None else [found]

    def _lookup(self, kind: str, name: str) -> Registered | None:
        package, colon, bare = name.rpartition(":")
        if not colon:
            return self._by_name(kind, name)
        return next((each for each in self._parts.get((kind, bare), []) if each.distribution == package), None)

    def _by_name(self, kind: str, name: str) -> Registered | None:
        """The part that a bare name means: the only one of that name, or the built-in one."""
        bearers = self._parts.get((kind, name), [])
        if len(bearers) == 1:
            return bearers[0]
        return next((each for each in bearers if each.distribution == BUILT_IN), None)

    def _add(self, plugin: Plugin) -> None:
        namespace = plugin.load()
        _check_interface(getattr(namespace, "SSL_DC_INTERFACE", INTERFACE))
        try:
            self._manager.register(namespace, name=f"{plugin.distribution}:{plugin.name}")
        except pluggy.PluginValidationError as error:
            raise PluginError(f"hooks are called without arguments; {' '.join(str(error).split())}") from error
        if unknown := self._unknown_hooks(namespace):
            self._manager.unregister(namespace)
            raise PluginError("; ".join(map(_no_such_hook, unknown)))
        silent = True
        for kind in KINDS.values():
            for implementation in getattr(self._manager.hook, kind.hook).get_hookimpls():
                if implementation.plugin is namespace:
                    silent = False
                    parts = implementation.function()
                    if not isinstance(parts, (list, tuple)):
                        raise TypeError(f"{kind.hook} must return a list of ssl_dc.Part, not {type(parts).__name__}")
                    for part in parts:
                        self._add_part(plugin, kind, part)
        if silent:
            raise PluginError("it brings nothing: no function in it is marked @ssl_dc.hookimpl and has the name of a hook")

    def _unknown_hooks(self, namespace: Any) -> list[str]:
        """The names of hooks that a plugin implements and that do not exist. pluggy lets them pass."""
        callers = self._manager.get_hookcallers(namespace) or []
        return [
            caller.name
            for caller in callers
            if not caller.has_spec()
            and any(hook.plugin is namespace and not hook.optionalhook for hook in caller.get_hookimpls())
        ]

    def _add_part(self, plugin: Plugin, kind: Kind, part: Part) -> None:
        if not isinstance(part, Part):
            raise TypeError(f"{kind.hook} must return a list of ssl_dc.Part, not of {type(part).__name__}")
        if not _NAME.fullmatch(part.name):
            self._leave_out(plugin, f"{kind.label} {part.name!r}: a name is a letter, then letters, digits, '_', '-', '.'")
            return
        bearers = self._parts.setdefault((kind.name, part.name), [])
        if any(each.distribution == plugin.distribution for each in bearers):
            self._leave_out(plugin, f"{kind.label} {part.name!r} is brought by {plugin.distribution} twice")
            return
        bearers.append(Registered(kind.name, part, plugin.distribution, plugin.version))

    def _leave_out(self, plugin: Plugin, reason: str) -> None:
        self.broken.append(Broken(plugin.name, plugin.distribution, plugin.version, reason))


def did_you_mean(wrong: str, names: Sequence[str]) -> str:
    """A question that suggests names for a wrong one: those that begin with it, or else the nearest ones.

    Args:
        wrong: The wrong name.
        names: The names that there are, in the order in which equally near ones are suggested.

    Returns:
        The question, with a space before it; nothing if no name is near.
    """
    near = [name for name in names if wrong and name.startswith(wrong)]
    if not near:
        close = difflib.get_close_matches(wrong, names, n=len(names) or 1)
        likeness = {name: difflib.SequenceMatcher(None, name, wrong).ratio() for name in close}
        near = [name for name in names if name in likeness and likeness[name] == max(likeness.values())]
    quoted = [repr(name) for name in near[:MOST_SUGGESTED]]
    if not quoted:
        return ""
    return f" Did you mean {' or '.join(filter(None, (', '.join(quoted[:-1]), quoted[-1])))}?"


@cache
def registry() -> Registry:
    """The registry of this process. It is made at the first call.

    Raises:
        PluginError: If the environment asks for a plugin that is not installed.
    """
    return Registry(chosen_plugins())


def _own_fault(option: str, value: Any, reason: str) -> str:
    """That options refuse what they bring themselves, in one sentence."""
    why = reason.removeprefix("Value error, ")
    what = f"the part's name {value!r} as" if option == "name" else f"the default {value!r} of"
    return f"its options refuse {what} their option {option!r} ({why[:1].lower()}{why[1:]}), so the plugin is at fault"


def _no_such_hook(name: str) -> str:
    hooks = [kind.hook for kind in KINDS.values()]
    near = difflib.get_close_matches(name, hooks, n=1)
    hint = f"did you mean {near[0]}?" if near else f"there are: {', '.join(hooks)}"
    return f"it implements the hook {name}, which does not exist; {hint}"


def _check_interface(declared: Any) -> None:
    """Refuse a plugin for another interface: the major version must be ours, and the minor version no later than ours."""
    if not re.fullmatch(r"\d+\.\d+", str(declared)):
        raise PluginError(f"SSL_DC_INTERFACE = {declared!r} is not a version such as {INTERFACE!r}")
    theirs, ours = (tuple(map(int, version.split("."))) for version in (str(declared), INTERFACE))
    if theirs[0] != ours[0] or theirs > ours:
        raise PluginError(
            f"it is written for version {declared} of the interface, and this ssl-dc has {INTERFACE}; it loads plugins for"
            f" {ours[0]}.0 to {INTERFACE}"
        )
