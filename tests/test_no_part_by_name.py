"""The loop, evaluation, inference and the command line know interfaces only: they name no concrete part."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import ssl_dc
from ssl_dc.plugins.discovery import BUILT_IN
from ssl_dc.plugins.registry import Registered, registry

PACKAGE = Path(ssl_dc.__file__).parent
ROOMS = ("training", "evaluation", "compiled", "bench", "export", "cli")
FILES = sorted(path for room in ROOMS for path in (PACKAGE / room).rglob("*.py"))

RUN_PARTS = [
    registered
    for registered in registry().all()
    if registered.distribution == BUILT_IN and registered.kind not in ("protocol", "command")
]
"""Protocols are parts that live in evaluation, commands in cli, each in the file that registers it."""

PLAIN_WORDS = {
    "none",
    "shared",
    "separate",
    "double",
    "standard",
    "folder",
    "parquet",
    "digits",
    "random",
    "prefix",
    "batched",
}
"""Names that are words of the language too: they are looked for as values, not in running text."""


def part_modules(registered: Registered) -> set[str]:
    return {str(string).partition(":")[0] for string in (registered.part.target, registered.part.options)} - {"None"}


def values(tree: ast.Module) -> Iterator[str]:
    """Every string that is a value: not a docstring, not an annotation."""
    documentation = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef))
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documentation:
            yield node.value


def imports(tree: ast.Module) -> set[str]:
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            found |= {str(node.module), *(f"{node.module}.{name.name}" for name in node.names)}
        elif isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_part_is_named(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text)
    names = {registered.part.name for registered in RUN_PARTS}
    modules = set.union(*map(part_modules, RUN_PARTS))
    as_value = names & set(values(tree))
    in_text = {name for name in names - PLAIN_WORDS if re.search(rf"\b{name}\b", text, re.IGNORECASE)}
    assert (as_value, in_text, modules & imports(tree)) == (set(), set(), set())


def test_the_search_finds_what_it_looks_for() -> None:
    tree = ast.parse('"""none"""\nfrom ssl_dc.gating.dgnet import DGNet\nx = f("none")\n')
    assert list(values(tree)) == ["none"]
    assert "ssl_dc.gating.dgnet" in imports(tree)
