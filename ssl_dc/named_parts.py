"""The parts of a run: what messages call each of them, and which of them raised an exception."""

from __future__ import annotations

import inspect
import re
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from os.path import dirname, sep
from types import FrameType
from typing import NamedTuple

from torch import nn

from ssl_dc.backbones.base import Backbone
from ssl_dc.encoders.base import Encoder
from ssl_dc.errors import PartError, SslDcError, Terminated, is_lack_of_memory
from ssl_dc.gating.base import Gate
from ssl_dc.norms.base import RouteNorm
from ssl_dc.objectives.base import Objective
from ssl_dc.plugins.discovery import BUILT_IN
from ssl_dc.plugins.kinds import KINDS
from ssl_dc.plugins.registry import Registered

_MODULES: Mapping[type[nn.Module], str] = {
    Gate: "gating",
    RouteNorm: "norm",
    Backbone: "backbone",
    Encoder: "encoder",
    Objective: "objective",
}
"""The kind of part that a module of a class belongs to."""

_OURS = {"ssl_dc", "torch", "accelerate", "builtins"}
"""Packages whose exceptions are not a stranger's."""

_WORKER_FRAME = re.compile(r'^  File "(.*)", line (\d+), in (.*)\n    (.*)$', re.MULTILINE)
"""A caller in the traceback that torch hands on, as text, from a process that prepares images."""

_CALLED_BY = {"views": re.compile(r"\.(view|crop)\("), "data": re.compile(r"\.image\(")}
"""How our code calls the parts that such a process runs."""


class _Place(NamedTuple):
    """Where code stands."""

    file: str
    line: int
    function: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}, in {self.function}"


class NamedParts:
    """The parts of a run, by kind.

    Args:
        objects: The parts themselves. Those inside the encoder and the objective are found there.
        registered: The records of the parts that come from the registry. A part without a record is called by its class.
    """

    def __init__(self, objects: Mapping[str, object], registered: Mapping[str, Registered]) -> None:
        self._objects = objects
        self._registered = registered

    def name(self, kind: str, part: object = None) -> str:
        """What messages call a part: its kind, its name and its distribution, or its kind and its class.

        Args:
            kind: The kind of part.
            part: The object, where it is inside another one, as a backbone is.
        """
        if kind in self._registered:
            return str(self._registered[kind])
        return f"the {KINDS[kind].label} {type(self._objects.get(kind, part)).__name__}"

    def has(self, kind: str) -> bool:
        """Whether there is a part of a kind that was given as such."""
        return self._objects.get(kind) is not None

    @contextmanager
    def blamed(self, when: Callable[[], str]) -> Iterator[None]:
        """Name the part that raises an exception here, in one message.

        Args:
            when: When it is, for the message, such as ``step 3``.

        Raises:
            PartError: In place of an exception that a part raised, unless that part is built in.
        """
        try:
            yield
        except (SslDcError, Terminated):
            raise
        except (Exception, SystemExit) as error:  # a part that calls sys.exit would end the training as if all were well
            said = None if is_lack_of_memory(error) else self._said(error)
            if said is None:
                raise
            raise PartError(f"{when()}: {said}") from error

    def _said(self, error: BaseException) -> str | None:
        """What an exception says, and which part raised it; None if no part of a stranger did."""
        found = self._in_worker(str(error)) or self._in_traceback(error)
        if found is None:
            return None
        name, place = found
        kind, text = _kind_and_text(error)
        return f"{name} raised {kind}: {text} ({place})" if text else f"{name} raised {kind} ({place})"

    def _in_traceback(self, error: BaseException) -> tuple[str, _Place] | None:
        """The part that raised an exception of this process, and where: the innermost one that is a stranger's."""
        frames = [(_top(frame.f_globals.get("__name__", "")), frame, line) for frame, line in _innermost_first(error)]
        owners = self._owners()
        for package, frame, _ in frames:
            part = frame.f_locals.get("self")
            owner = owners.get(id(part)) or _owner(part)  # the cost is counted on a copy
            if owner is not None and package == _top(type(part).__module__) and package not in _OURS:
                return self.name(*owner), _place(frames, package)
        strangers = {_package(each.part.target): str(each) for each in self._strangers()}
        for package, _, _ in frames:
            if package in strangers:
                return strangers[package], _place(frames, package)
        return None

    def _in_worker(self, text: str) -> tuple[str, _Place] | None:
        """The part that raised an exception in a process that prepares images, and where."""
        if not text.startswith("Caught "):
            return None
        roots = {kind: root for kind in _CALLED_BY if (root := self._root(kind))}
        frames = _WORKER_FRAME.findall(text)
        for number, (file, line, function, _) in reversed(list(enumerate(frames))):
            kinds = [kind for kind, root in roots.items() if _is_inside(file, root)]
            if kinds:
                root = roots[kinds[0]]
                call = next((code for caller, _, _, code in reversed(frames[:number]) if not _is_inside(caller, root)), "")
                called = [kind for kind in kinds if _CALLED_BY[kind].search(call)] or kinds
                return " or ".join(map(self.name, called)), _Place(file, int(line), function)
        return None

    def _owners(self) -> dict[int, tuple[str, object]]:
        """The kind and the part that each object belongs to, by its id: the parts and the modules inside them."""
        owners: dict[int, tuple[str, object]] = {}
        for kind, part in self._objects.items():
            if part is None:
                continue
            if isinstance(part, nn.Module):
                _add_modules(part, (kind, part), owners)
            else:
                owners[id(part)] = (kind, part)
        return owners

    def _strangers(self) -> list[Registered]:
        return [each for each in self._registered.values() if each.distribution != BUILT_IN]

    def _root(self, kind: str) -> str | None:
        """The folder or file with the code of a part; None if the part is built in."""
        if kind in self._registered:
            registered = self._registered[kind]
            module = None if registered.distribution == BUILT_IN else sys.modules.get(_package(registered.part.target))
            file = getattr(module, "__file__", None)
            return dirname(file) if file and hasattr(module, "__path__") else file
        part = type(self._objects.get(kind))
        return None if _top(part.__module__) in _OURS else inspect.getsourcefile(part)


def _is_inside(file: str, root: str) -> bool:
    return file == root or file.startswith(root + sep)


def _owner(module: object) -> tuple[str, object] | None:
    """The kind of part that a module is, and the module; None if it is none of its own."""
    return next(((kind, module) for base, kind in _MODULES.items() if isinstance(module, base)), None)


def _add_modules(module: nn.Module, owner: tuple[str, object], owners: dict[int, tuple[str, object]]) -> None:
    owner = _owner(module) or owner
    owners[id(module)] = owner
    for child in module.children():
        _add_modules(child, owner, owners)


def _innermost_first(error: BaseException) -> list[tuple[FrameType, int]]:
    return list(reversed(list(traceback.walk_tb(error.__traceback__))))


def _place(frames: Sequence[tuple[str, FrameType, int]], package: str) -> _Place:
    """The innermost place in the code of a package that some frame is of."""
    frame, line = next((frame, line) for each, frame, line in frames if each == package)
    return _Place(frame.f_code.co_filename, line, frame.f_code.co_name)


def _kind_and_text(error: BaseException) -> tuple[str, str]:
    """The type of an exception, and the first line of what it says; those of the worker's, if it comes from one."""
    text = str(error).strip()
    if text.startswith("Caught ") and _WORKER_FRAME.search(text):
        kind, _, text = text.splitlines()[-1].partition(": ")
        return kind.rpartition(".")[2], text
    return type(error).__name__, text.splitlines()[0] if text else ""


def _package(target: str) -> str:
    """The top package of an import string ``package.module:Class``."""
    return _top(target.partition(":")[0])


def _top(module: str) -> str:
    return module.partition(".")[0]
