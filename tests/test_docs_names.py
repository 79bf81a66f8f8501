"""Every file, symbol, option, config key and variable that a page names in backticks exists."""

from __future__ import annotations

import builtins
import importlib
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import click
import pytest
import torch.nn
import torch.utils.data

import ssl_dc
from helpers.shown_code import PAGES, REPOSITORY
from ssl_dc.cli import main
from ssl_dc.compiled.executor import Executor
from ssl_dc.config import RunConfig
from ssl_dc.plugins import hookspecs
from ssl_dc.plugins.kinds import KINDS
from ssl_dc.plugins.registry import registry

USERS_FILES = {"train/", "my_objective.py"}
"""What a page means on the reader's disk."""
OTHERS_COMMANDS = ("pip ", "pytest ", "pre-commit ", "python ", "torchrun ", "docker ")
INSTANCES = {"model": ssl_dc.Model, "compiled": Executor, "route": ssl_dc.Route}
"""The class of the object that a page calls by this name."""


def spans(page: Path) -> list[str]:
    """What a page has in single backticks."""
    prose = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    return re.findall(r"`([^`\n]+)`", prose)


BY_HAND = ("tests/test_random_cases.py", "tests/compiled/test_sanitizers.py")
"""Take their number of cases from variables."""


@cache
def source() -> str:
    """The text of the package, of the plugins that come with it, and of the tests that are run by hand."""
    files = [
        *REPOSITORY.glob("ssl_dc/**/*.py"),
        *REPOSITORY.glob("plugins/*/*/*.py"),
        *(REPOSITORY / name for name in BY_HAND),
    ]
    return "\n".join(path.read_text(encoding="utf-8") for path in files)


@cache
def file_names() -> set[str]:
    return {path.name for room in ("ssl_dc", "tests", "configs", "benchmarks") for path in REPOSITORY.glob(f"{room}/**/*")}


@cache
def options() -> set[str]:
    """The long options of every command and of the program itself."""
    context = click.Context(main)

    def of(command: click.Command) -> Iterator[str]:
        for parameter in command.get_params(context):
            yield from parameter.opts
        if isinstance(command, click.Group):
            for name in command.list_commands(context):
                below = command.get_command(context, name)
                assert below is not None
                yield from of(below)

    models = [registry().find("protocol", name).options_model() for name in registry().names("protocol")]
    of_protocols = {f"--{field.replace('_', '-')}" for model in models for field in model.model_fields}
    return {"--plugin", "--no-plugins", "--help", *of(main), *of_protocols}


def is_key(section: str, name: str, page: Path) -> bool:
    """Whether some config has this key, or a plugin that comes with the package or stands on the page brings it."""
    model = RunConfig.model_fields[section].annotation
    fields = set(getattr(model, "model_fields", {}))
    if section in KINDS:
        for part in registry().names(section):
            fields |= set(registry().find(section, part).options_model().model_fields)
    return (
        name in fields or re.search(rf"^\s+{name}: ", source() + page.read_text(encoding="utf-8"), re.MULTILINE) is not None
    )


def is_file(name: str, page: Path) -> bool:
    places = (REPOSITORY, REPOSITORY / "ssl_dc", page.parent)
    if "/" in name.rstrip("/"):
        return any((place / name).exists() for place in places)
    written_by_runs = re.search(rf"[\"'/]{re.escape(name)}", source()) is not None
    return name in file_names() or written_by_runs or any((place / name).exists() for place in places)


def has_symbol(path: str) -> bool:
    """Whether a dotted path leads to an object, through modules first."""
    names = path.split(".")
    found = importlib.import_module(names[0])
    for number, name in enumerate(names[1:], start=1):
        if not hasattr(found, name):
            try:
                importlib.import_module(".".join(names[: number + 1]))
            except ImportError:
                return False
        found = getattr(found, name)
    return True


def is_written_into_files(path: str) -> bool:
    """Whether it is a key of the metadata of exported files, which begin with ``ssl_dc.`` too."""
    text = (REPOSITORY / "ssl_dc" / "export" / "description.py").read_text(encoding="utf-8")
    name = path.removeprefix("ssl_dc.")
    return f'"{name}"' in text or path in source()


def has_attribute(owner: type, name: str) -> bool:
    documented = re.search(rf"^\s+{name}: ", owner.__doc__ or "", re.MULTILINE) is not None
    return hasattr(owner, name) or documented


def wrong(span: str, page: Path) -> Iterator[str]:
    """What a span names that does not exist."""
    for file in re.findall(
        r"(?<![\w/~.*])(?:[\w.-]+/)*[\w-]+\.(?:py|pyi|c|csv|json|jsonl|md|yaml|safetensors)(?![\w.(=])", span
    ):
        placeholder = any(part.isupper() for part in re.split(r"[/.]", file))
        if not placeholder and file not in USERS_FILES and not is_file(file, page):
            yield f"file {file}"
    if re.fullmatch(r"[a-z_]+/", span) and span not in USERS_FILES and not is_file(span, page):
        yield f"folder {span}"
    for symbol in re.findall(r"(?<![\w/.-])ssl_dc(?:\.[A-Za-z_]\w*)+", span):
        if not has_symbol(symbol) and not is_written_into_files(symbol):
            yield f"symbol {symbol}"
    for hook in re.findall(r"\bssl_dc_\w+", span):
        if not hasattr(hookspecs, hook) and hook not in source():
            yield f"hook {hook}"
    for owner, name in re.findall(r"^([A-Z]\w+|model|compiled|route)\.(\w+)", span):
        cls = INSTANCES.get(owner) or getattr(ssl_dc, owner, None)
        if isinstance(cls, type) and not has_attribute(cls, name) and not is_file(f"{owner}.{name}", page):
            yield f"attribute {owner}.{name}"
    a_class = re.fullmatch(r"[A-Z][a-z]+(?:[A-Z][a-z]+)+", span)
    if a_class and not any(hasattr(module, span) for module in (ssl_dc, builtins, torch.nn, torch.utils.data)):
        yield f"name {span}"
    if not span.startswith(OTHERS_COMMANDS):
        for option in re.findall(r"(?<![\w-])--[a-z][\w.-]*", span):
            section, _, key = option.removeprefix("--").partition(".")
            if not (is_key(section, key, page) if key else option in options()):
                yield f"option {option}"
    for command in re.findall(r"\bssl-dc ([a-z]+)\b", span):
        if not registry().has("command", command):
            yield f"command {command}"
    for section, key in re.findall(r"(?<![\w./-])([a-z]+)\.([a-z]\w*)\b(?![(/.])", span):
        if section in RunConfig.model_fields and not is_file(f"{section}.{key}", page) and not is_key(section, key, page):
            yield f"config key {section}.{key}"
    for variable in re.findall(r"\bSSL_DC_[A-Z_]+", span):
        if variable not in source():
            yield f"variable {variable}"
    for extra in re.findall(r"ssl-dc\[(\w+)\]", span):
        if not re.search(rf"^{extra} = \[", (REPOSITORY / "pyproject.toml").read_text(), re.MULTILINE):
            yield f"extra {extra}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_what_a_page_names_exists(page: Path) -> None:
    assert [f"`{span}`: no {what}" for span in spans(page) for what in wrong(span, page)] == []


@pytest.mark.parametrize(
    "span",
    [
        "evaluation/nothing.py",
        "nothing.json",
        "nothing/",
        "ssl_dc.nothing",
        "ssl_dc.training.nothing.Trainer",
        "ssl_dc_nothing() -> list[Part]",
        "Route.NOTHING",
        "model.nothing(x)",
        "NothingOfThisName",
        "--nothing 3",
        "--objective.nothing=3",
        "ssl-dc nothing RUN",
        "training.nothing: skip",
        "budget.nothing=0.3",
        "SSL_DC_NOTHING=1",
        "pip install 'ssl-dc[nothing]'",
    ],
)
def test_what_does_not_exist_is_found(span: str) -> None:
    assert list(wrong(span, REPOSITORY / "README.md"))
