"""Makes the reference page of the hooks from the table of the kinds and the docstrings of the base classes."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from typing import Any

from ssl_dc.plugins import hookspecs
from ssl_dc.plugins.kinds import KINDS
from ssl_dc.plugins.parts import INTERFACE, import_string

HEAD = f"""# Hooks

`ssl-dc plugins hooks` made this page from the code. Version {INTERFACE} of the interface.
"""


def hook_reference() -> str:
    """The page, as Markdown."""
    sections = [
        f"## `{kind.hook}() -> list[Part]`\n\n{_markdown(hookspecs.hook_documentation(kind))}" for kind in KINDS.values()
    ]
    strings = {string for kind in KINDS.values() for string in (kind.base, kind.options, *kind.also)}
    strings.add("ssl_dc.plugins.parts:Part")
    public = {string.partition(":")[2]: string for string in strings if string and string.startswith("ssl_dc.")}
    classes = [_class_section(import_string(public[name])) for name in sorted(public)]
    parts = [HEAD, _markdown(_text(hookspecs)), *sections, "# What parts are made of", *classes]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def _class_section(thing: type) -> str:
    """A public class: what it is, and each of its public methods."""
    lines = [f"## `ssl_dc.{thing.__name__}`", _markdown(_text(thing))]
    for method, value in _methods(thing):
        lines.append(f"### `{method}{_signature(value)}`\n\n{_markdown(_text(value))}")
    return "\n\n".join(lines)


def _methods(thing: type) -> Iterator[tuple[str, Any]]:
    """The documented methods and properties that a class itself defines, in order."""
    for name, value in vars(thing).items():
        value = value.fget if isinstance(value, property) else value
        if (
            not name.startswith("_")
            and inspect.isfunction(value)
            and value.__doc__
            and value.__module__.startswith("ssl_dc")
        ):
            yield name, value


def _signature(function: Any) -> str:
    """The signature as the source has it, with annotations."""
    source = inspect.getsource(function)
    definition = ast.parse(inspect.cleandoc("\n" + source) if source[0].isspace() else source).body[0]
    assert isinstance(definition, ast.FunctionDef)  # noqa: S101  # it is the source of a function
    returns = f" -> {ast.unparse(definition.returns)}" if definition.returns else ""
    return f"({ast.unparse(definition.args)}){returns}"


def _text(thing: Any) -> str:
    return inspect.getdoc(thing) or ""


def _markdown(docstring: str) -> str:
    """A docstring in Google's style, as Markdown."""
    text = re.sub(r":(?:class|func|meth|data|mod):`~?([\w.]+)`", r"`\1`", docstring).replace("``", "`")
    return re.sub(r"^(Args|Attributes|Returns|Raises):\n((?:    .*\n?|\n)+)", _list, text, flags=re.MULTILINE)


def _list(match: re.Match[str]) -> str:
    """A section of a docstring as a list."""
    heading, body = match.groups()
    items: list[str] = []
    for line in inspect.cleandoc(body).splitlines():
        if line and not line[0].isspace():
            name, colon, rest = line.partition(":")
            items.append(f"- `{name}`:{rest}" if colon and heading != "Returns" else f"- {line}")
        elif line.strip():
            items[-1] += f" {line.strip()}"
    return f"{heading}:\n\n" + "\n".join(items) + "\n"
