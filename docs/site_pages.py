"""What the site has beyond the pages in this folder: references made from the code, and links into the repository.

Pages link to each other and to files of the repository by relative paths, so that they also work where the repository is
browsed. On the site a link to a file that is no page leads to the repository.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from types import MemberDescriptorType
from typing import Any, get_origin

import click
from pydantic import BaseModel

import ssl_dc
from ssl_dc.cli import main
from ssl_dc.config import RunConfig
from ssl_dc.config.messages import allowed_values
from ssl_dc.plugins.discovery import BUILT_IN
from ssl_dc.plugins.kinds import KINDS
from ssl_dc.plugins.registry import Registered, registry

DOCS = Path(__file__).parent
REPOSITORY = DOCS.parent
IMAGES = {".png", ".svg", ".jpg"}
NOT_PAGES = "results/reproduction/table*.md"
"""Pages that Sphinx leaves out, as in conf.py."""

LINK = re.compile(r"(?<=\]\()([^)\s#]+)(?=[)#])")


def home() -> str:
    """The address of the repository, as the distribution states it."""
    urls = dict(line.split(", ", 1) for line in metadata.metadata("ssl-dc").get_all("Project-URL") or [])
    return urls["Homepage"]


def with_links_into_the_repository(page: Path, text: str) -> str:
    """A page's text, in which links to files that the site does not have lead to the repository."""

    def target(match: re.Match[str]) -> str:
        said = match.group(1)
        path = (page.parent / said).resolve()
        if "://" in said or said.startswith("mailto:") or is_on_the_site(path):
            return said
        return f"{home()}/{'tree' if path.is_dir() else 'blob'}/main/{path.relative_to(REPOSITORY)}"

    return LINK.sub(target, text)


def is_on_the_site(path: Path) -> bool:
    """Whether a file is a page of the site, or a picture on one."""
    if not path.is_relative_to(DOCS) or path.match(NOT_PAGES):
        return False
    return path.suffix in IMAGES or path.suffix == ".md"


def settings_reference() -> str:
    """Every setting of a config, from the pydantic models: the sections of a run, then the options of each part."""
    fields = {name: field for name, field in RunConfig.model_fields.items() if name not in KINDS}
    models = {name: field for name, field in fields.items() if is_model(field.annotation)}
    own = [f"## `{name}`\n\n{field.description}\n\n{options_of(field.annotation, name)}" for name, field in models.items()]
    single = [
        f"- **`{name}`**, {default_of(field)}. {field.description}" for name, field in fields.items() if name not in models
    ]
    parts = [
        f"## `{kind.name}`\n\n{kind.section or f'{kind.brings}.'}\n\n" + "\n\n".join(map(part_section, built_in(kind.name)))
        for kind in KINDS.values()
        if kind.options and built_in(kind.name)
    ]
    return "\n\n".join([*own, "## Others\n\n" + "\n".join(single), *parts])


def is_model(thing: Any) -> bool:
    """Whether something is a class of pydantic's."""
    return inspect.isclass(thing) and issubclass(thing, BaseModel)


def built_in(kind: str) -> list[Registered]:
    """The parts of a kind that come with the package."""
    return [part for part in registry().all() if part.kind == kind and part.distribution == BUILT_IN]


def part_section(registered: Registered) -> str:
    """A part: what it is, and its options."""
    name, kind = registered.part.name, registered.kind
    return f"### {kind} `{name}`\n\n{registered.part.summary}\n\n{options_of(registered.options_model(), kind)}"


def options_of(model: Any, section: str) -> str:
    """The options of a model, a line each: key, default, meaning, what is allowed."""
    lines = [
        f"- **`{section}.{name}`**, {default_of(field)}. {field.description or ''} *Allowed: {allowed_values(field)}.*"
        for name, field in model.model_fields.items()
        if name != "name"
    ]
    return "\n".join(lines) if lines else "It has no options."


def default_of(field: Any) -> str:
    """What a field is by default, as a config writes it."""
    if field.is_required():
        return "which must be given"
    value = field.get_default(call_default_factory=True)
    if isinstance(value, tuple):
        value = ", ".join(map(str, value)) or None
    return "by default not set" if value is None else f"by default `{value}`"


def command_reference() -> str:
    """The help of every command."""
    context = click.Context(main, info_name="ssl-dc", max_content_width=110, terminal_width=110)
    return "\n\n".join(help_of(main, name, context) for name in main.list_commands(context))


def help_of(group: click.Group, name: str, context: click.Context, level: int = 2) -> str:
    """The help of a command, and of those below it."""
    command = group.get_command(context, name)
    assert command is not None  # noqa: S101  # it was listed
    own = click.Context(command, info_name=name, parent=context, max_content_width=110, terminal_width=110)
    path = own.command_path
    text = f"{'#' * level} `{path}`\n\n```text\n{command.get_help(own)}\n```"
    if isinstance(command, click.Group):
        below = [help_of(command, each, own, level + 1) for each in command.list_commands(own)]
        return "\n\n".join([text, *below])
    return text


ROOMS = {
    "api": "Functions",
    "model": "A trained model",
    "runs": "A run",
    "training": "Train by hand",
    "errors": "Errors",
}
"""Headings of rooms whose names are not headings themselves."""


def api_reference() -> str:
    """Every public name, by the room of the package that it comes from."""
    rooms: dict[str, list[str]] = {}
    for name, module in public_names():
        rooms.setdefault(module.split(".")[1], []).append(documented(name, module))
    order = [*ROOMS, *sorted(set(rooms) - set(ROOMS))]
    headed = ((ROOMS.get(room, room.replace("_", " ").capitalize()), rooms[room]) for room in order)
    return "\n\n".join(
        f"## {heading}\n\n" + "\n".join(filter(None, entries)) for heading, entries in headed if any(entries)
    )


def public_names() -> Iterator[tuple[str, str]]:
    """Each public name with its module, from the stub."""
    stub = (REPOSITORY / "ssl_dc" / "__init__.pyi").read_text(encoding="utf-8")
    for module, name in re.findall(r"^from (\S+) import (\w+) as", stub, re.MULTILINE):
        yield name, module


def documented(name: str, module: str) -> str:
    """What makes Sphinx document a public name. Options are on the page of the settings."""
    thing = getattr(ssl_dc, name)
    if is_model(thing):
        return ""
    if inspect.isclass(thing) and get_origin(thing) is None:
        directive = f".. autoclass:: ssl_dc.{name}"
    elif inspect.isfunction(inspect.unwrap(thing)):
        directive = f".. autofunction:: ssl_dc.{name}"
    else:
        directive = f".. autodata:: {module}.{name}\n   :no-value:"
    return f"```{{eval-rst}}\n{directive}\n```\n"


REFERENCES: Mapping[str, Any] = {"settings": settings_reference, "commands": command_reference, "api": api_reference}
"""Pages that end with a reference that is made from the code."""


def on_source_read(_app: Any, name: str, source: list[str]) -> None:
    """Complete the text of a page before it is parsed."""
    page = DOCS / f"{name}.md"
    text = with_links_into_the_repository(page, source[0])
    source[0] = f"{text}\n\n{REFERENCES[name]()}\n" if name in REFERENCES else text


def on_skip_member(_app: Any, _what: str, _name: str, thing: Any, skip: bool, _options: Any) -> bool | None:
    """Leave out the fields of named tuples and slots: the class documents them itself."""
    is_field = type(thing).__name__ == "_tuplegetter" or isinstance(thing, MemberDescriptorType)
    return True if is_field or skip else None


def setup(app: Any) -> dict[str, Any]:
    """Connect all of it to Sphinx."""
    from pygments.lexers.special import TextLexer

    app.add_lexer("layers", TextLexer)
    app.connect("source-read", on_source_read)
    app.connect("autodoc-skip-member", on_skip_member)
    return {"parallel_read_safe": True}
