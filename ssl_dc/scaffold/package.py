"""Writes a package that brings one part, from templates. Everything is checked before anything is written."""

from __future__ import annotations

import ast
import json
import keyword
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from string import Template

from ssl_dc.errors import ConfigError, PluginError
from ssl_dc.plugins.kinds import KINDS
from ssl_dc.plugins.parts import INTERFACE
from ssl_dc.plugins.registry import registry

TEMPLATES = Path(__file__).parent / "templates"
"""A folder for each kind of part, and ``any`` for what all kinds share.

The ``sketch.json`` of a kind says what its templates hold: ``summary``, what the part does, and ``target``, its name in its
module."""
SUFFIX = ".template"

_NAME = re.compile(r"[A-Za-z]([A-Za-z0-9_.-]*[A-Za-z0-9])?")
"""Names that a part and a distribution can both have: ASCII, with a letter or digit at the end."""


def kinds() -> list[str]:
    """The kinds of part that there are templates for."""
    return [kind for kind in KINDS if (TEMPLATES / kind).is_dir()]


def write_package(directory: Path, kind: str, name: str) -> list[Path]:
    """Write a package that brings one part. It installs, passes its own tests, and its part works at once.

    Args:
        directory: A new or empty folder.
        kind: The kind of part.
        name: The name of the part. The distribution is ``ssl-dc-NAME``.

    Returns:
        The files written, sorted.

    Raises:
        PluginError: If there is no such kind, or the name cannot be one of a part, a distribution and a class, or is taken.
            Nothing is written then.
        ConfigError: If the directory is not empty, or cannot be written to.
    """
    if kind not in kinds():
        raise PluginError(f"unknown kind of part {kind!r}; there are: {', '.join(kinds())}.")
    words = _words(kind, name)
    _check_name(kind, name, words)
    _check_directory(directory)
    texts = {_place(path, words): Template(text).substitute(words) for path, text in _templates(kind).items()}
    try:
        for place, text in texts.items():
            path = directory / place
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{directory}: cannot be written to: {error.strerror}") from error
    return sorted(directory / place for place in texts)


def next_commands(directory: Path, kind: str, name: str) -> list[str]:
    """The commands that install a written package, test it, and use its part."""
    where = str(directory)
    folder = where if directory.is_absolute() or where.startswith(".") else f"./{where}"  # else pip looks for a project
    return [
        f"pip install -e {shlex.quote(f'{folder}[test]')}",
        f"python -m pytest {shlex.quote(where)}",
        _use(kind, name),
    ]


def _use(kind: str, name: str) -> str:
    """The command that uses a part."""
    return KINDS[kind].use.replace("NAME", name)


def _words(kind: str, name: str) -> dict[str, str]:
    """The text that replaces each ``$word`` of the templates."""
    identifier = re.sub(r"[^A-Za-z0-9]", "_", name)
    class_name = "".join(word[:1].upper() + word[1:] for word in identifier.split("_"))
    words = _words_for(kind, name, identifier, class_name)
    if class_name in _names_used(kind, _words_for(kind, name, identifier, "_Part")):
        return _words_for(kind, name, identifier, f"{class_name}{kind.capitalize()}")
    return words


def _names_used(kind: str, words: Mapping[str, str]) -> set[str]:
    """Every name that the modules of a package bind or read. Its class must have another."""
    modules = [text for path, text in _templates(kind).items() if path.name.endswith(f".py{SUFFIX}")]
    nodes = [node for text in modules for node in ast.walk(ast.parse(Template(text).substitute(words)))]
    read_or_assigned = {node.id for node in nodes if isinstance(node, ast.Name)}
    imported = {
        (alias.asname or alias.name).partition(".")[0]
        for node in nodes
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    return read_or_assigned | imported


def _words_for(kind: str, name: str, identifier: str, class_name: str) -> dict[str, str]:
    sketch = json.loads((TEMPLATES / kind / "sketch.json").read_text(encoding="utf-8"))
    return {
        "kind": kind,
        "label": KINDS[kind].label,
        "name": name,
        "identifier": identifier,
        "module": f"ssl_dc_{identifier}",
        "distribution": f"ssl-dc-{name}",
        "class_name": class_name,
        "hook": KINDS[kind].hook,
        "interface": INTERFACE,
        "summary": sketch["summary"],
        "use": _use(kind, name),
        "target": Template(sketch["target"]).substitute(class_name=class_name),
    }


def _check_name(kind: str, name: str, words: Mapping[str, str]) -> None:
    if not _NAME.fullmatch(name):
        raise PluginError(
            f"name {name!r}: a name is a letter, then letters, digits, '_', '-' and '.', the last one a letter or a digit"
        )
    reserved = next((word for word in (name, words["class_name"]) if keyword.iskeyword(word)), None)
    if reserved:
        raise PluginError(f"name {name!r}: {reserved} is a keyword of Python, so no class can have that name")
    for registered in registry().all():
        ours = registered.distribution == words["distribution"]
        same_part = (registered.kind, registered.part.name) == (kind, name)
        if same_part and not ours:
            raise PluginError(f"name {name!r} is taken: there is the {registered}")
        if ours and not same_part:
            raise PluginError(
                f"name {name!r}: the package would be {registered.distribution}, which is installed and brings the"
                f" {registered}; choose another name, or add a part to that package"
            )


def _check_directory(directory: Path) -> None:
    if directory.exists() and not directory.is_dir():
        raise ConfigError(f"{directory} is a file; name a folder that is new or empty")
    if directory.is_dir() and any(directory.iterdir()):
        raise ConfigError(f"{directory} is not empty; name a folder that is new or empty")


def _templates(kind: str) -> dict[Path, str]:
    """Texts by their place: those of all kinds, then those of this kind, which replace texts of the same place."""
    return {
        path.relative_to(TEMPLATES / room): path.read_text(encoding="utf-8")
        for room in ("any", kind)
        for path in sorted((TEMPLATES / room).rglob(f"*{SUFFIX}"))
    }


def _place(path: Path, words: Mapping[str, str]) -> Path:
    """Where the text of a template goes: the folder ``package`` and the file ``test_part.py`` get the name of the part."""
    named = {"package": words["module"], "test_part.py": f"test_{words['identifier']}.py"}
    return Path(*(named.get(step, step) for step in path.with_name(path.name.removesuffix(SUFFIX)).parts))
