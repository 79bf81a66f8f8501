"""The layers of docs/structure.md are held by every import of every file, lazy and type-only ones included."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parent.parent
PACKAGE = "ssl_dc"

Sources = Mapping[str, str]
"""Each module to its text."""

Graph = Mapping[str, set[str]]
"""Each module to the modules of the package that it imports."""


def stated_layers() -> dict[str, int]:
    """Each room of the package to the number of its layer, from 0, the lowest; from the block of docs/structure.md."""
    page = (REPOSITORY / "docs" / "structure.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"^```layers\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    rooms = [
        (room.removesuffix("/").removesuffix(".py"), number)
        for number, line in enumerate(block.splitlines())
        for room in line.split()
    ]
    assert len(rooms) == len(dict(rooms)), "a room stands in two layers"
    return dict(rooms)


def package_sources() -> dict[str, str]:
    """Every module of the package."""
    return {
        module_name(path.relative_to(REPOSITORY)): path.read_text(encoding="utf-8")
        for pattern in ("*.py", "*.pyi")
        for path in (REPOSITORY / PACKAGE).rglob(pattern)
        if not path.with_suffix(".pyi").exists() or path.suffix == ".pyi"
    }


def module_name(path: Path) -> str:
    return ".".join(path.with_suffix("").parts).removesuffix(".__init__")


def room_of(module: str) -> str:
    """The file or folder right below the package that a module is, or is in; empty for the public face itself."""
    return module.partition(".")[2].partition(".")[0]


def imports(module: str, sources: Sources) -> set[str]:
    """The modules of the package that a module imports: anywhere in it, also by ``import_module`` of a text."""
    package = module if any(other.startswith(f"{module}.") for other in sources) else module.rpartition(".")[0]
    found: set[str] = set()
    for node in ast.walk(ast.parse(sources[module])):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            origin = ".".join([*above, *([node.module] if node.module else [])])
            # what is imported from a folder may be a file in it, or a name of its __init__.py
            found |= {full if (full := f"{origin}.{alias.name}") in sources else origin for alias in node.names}
        elif isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] in {"import_module", "__import__"}:
            found |= {arg.value for arg in node.args if isinstance(arg, ast.Constant) and isinstance(arg.value, str)}
    return {name for name in found if name.partition(".")[0] == PACKAGE} - {module}


def graph_of(sources: Sources) -> Graph:
    return {module: imports(module, sources) for module in sources}


def breaches(graph: Graph, layers: Mapping[str, int]) -> set[str]:
    """Every import that the layers forbid and every circle, a sentence each."""
    found = {f"{room} stands in no layer" for room in {room_of(module) for module in graph} - {"", *layers}}
    for module in set(graph) - {PACKAGE}:
        for other in graph[module]:
            mine, theirs = room_of(module), room_of(other)
            if not theirs:
                found.add(f"{module} imports the public face")
            elif mine != theirs and layers.get(theirs, 0) >= layers.get(mine, 0):
                where = "beside" if layers.get(theirs, 0) == layers.get(mine, 0) else "above"
                found.add(f"{module} imports {other}, which stands {where} it")
    return found | {f"circle of imports: {' -> '.join(circle)}" for circle in circles(graph)}


def circles(graph: Graph) -> Iterator[list[str]]:
    """The circles among the files of a room, each once. A circle through several rooms has an import upwards in it."""
    inside = {module: {other for other in graph[module] if room_of(other) == room_of(module)} for module in graph}
    for module in inside:
        for other in inside[module]:
            back = way(inside, other, module)
            if back and module == min(back):
                yield [module, *back]


def way(graph: Graph, start: str, end: str) -> list[str]:
    """A shortest way from a module to another along imports; empty if there is none."""
    before = {start: ""}
    waiting = [start]
    for module in waiting:
        for other in sorted(graph.get(module, ())):
            if other not in before:
                before[other] = module
                waiting.append(other)
    path: list[str] = []
    module = end if end in before else ""
    while module:
        path.insert(0, module)
        module = before[module]
    return path


LAYERS = stated_layers()
SOURCES = package_sources()
GRAPH = graph_of(SOURCES)


def test_no_import_leads_upwards_and_none_in_a_circle() -> None:
    assert sorted(breaches(GRAPH, LAYERS)) == []


def test_every_layer_names_rooms_that_there_are() -> None:
    assert set(LAYERS) == {room_of(module) for module in SOURCES} - {""}


PLANTED = [
    ("model", "ssl_dc.bench.measure", "ssl_dc.model imports ssl_dc.bench.measure, which stands above it"),
    ("compiled.executor", "ssl_dc.model", "ssl_dc.compiled.executor imports ssl_dc.model, which stands above it"),
    ("trackers.tensorboard", "ssl_dc.training.trainer", "imports ssl_dc.training.trainer, which stands above it"),
    ("config.schema", "ssl_dc.gating.options", "imports ssl_dc.gating.options, which stands above it"),
    ("config.schema", "ssl_dc.data.options", "imports ssl_dc.data.options, which stands above it"),
    ("data.base", "ssl_dc.views.pixels", "imports ssl_dc.views.pixels, which stands above it"),
    ("data.base", "ssl_dc.gating.base", "imports ssl_dc.gating.base, which stands beside it"),
    ("plugins.reference", "ssl_dc", "ssl_dc.plugins.reference imports the public face"),
    ("errors", "ssl_dc.plugins.parts", "imports ssl_dc.plugins.parts, which stands above it"),
    ("evaluation.drawing", "ssl_dc.evaluation.gate_statistics", "circle of imports: ssl_dc.evaluation.drawing -> "),
]
"""Breaches that there once were, and others: a module, what it is made to import, what is then said."""

FORMS = {
    "plain": "import {name}",
    "from": "from {above} import {last}",
    "lazy": "def later():\n    import {name}",
    "type-only": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import {name}",
    "by text": "from importlib import import_module\nimport_module('{name}')",
}
"""The ways to import a module."""


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("module", "imported", "said"), PLANTED)
def test_an_import_that_is_planted_is_found(module: str, imported: str, said: str, form: str) -> None:
    module = f"{PACKAGE}.{module}"
    above, _, last = imported.rpartition(".")
    line = FORMS[form].format(name=imported, above=above or imported, last=last if above else "train")
    planted = {**SOURCES, module: f"{SOURCES[module]}\n{line}\n"}
    (found,) = breaches({**GRAPH, module: imports(module, planted)}, LAYERS) - breaches(GRAPH, LAYERS)
    assert said in found


@pytest.mark.parametrize(
    ("line", "imported"),
    [
        ("from . import parts", "ssl_dc.plugins.parts"),
        ("from .parts import Part", "ssl_dc.plugins.parts"),
        ("from ..errors import PluginError", "ssl_dc.errors"),
        ("from .. import errors", "ssl_dc.errors"),
    ],
)
def test_relative_imports_are_followed(line: str, imported: str) -> None:
    sources = {**SOURCES, "ssl_dc.plugins.new": line}
    assert imports("ssl_dc.plugins.new", sources) == {imported}


def test_a_room_that_the_page_does_not_name_is_found() -> None:
    assert breaches({"ssl_dc.utils": set()}, LAYERS) == {"utils stands in no layer"}


def test_a_circle_of_three_files_is_found_once() -> None:
    graph = {f"ssl_dc.a.{name}": {f"ssl_dc.a.{other}"} for name, other in ("xy", "yz", "zx")}
    assert breaches(graph, {"a": 0}) == {"circle of imports: ssl_dc.a.x -> ssl_dc.a.y -> ssl_dc.a.z -> ssl_dc.a.x"}
