"""The face of the library."""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
import sys
from importlib import metadata
from itertools import pairwise
from pathlib import Path

import pytest

import ssl_dc
from ssl_dc import __all__ as public_names
from ssl_dc.plugins.discovery import BUILT_IN
from ssl_dc.plugins.kinds import KINDS
from ssl_dc.plugins.parts import import_string
from ssl_dc.plugins.registry import Registered, registry

REPOSITORY = Path(__file__).parent.parent
STUB = REPOSITORY / "ssl_dc" / "__init__.pyi"
PROMISED = {"ssl_dc", "ssl_dc.testing"}
"""The modules whose names are promised to plugins and users."""


def test_the_stub_exports_each_name_once_in_the_form_that_type_checkers_and_the_package_read() -> None:
    lines = [line for line in STUB.read_text().splitlines() if line.startswith("from ")]
    names = [name for line in lines for name in re.findall(r"^from ssl_dc[\w.]* import (\w+) as \1$", line)]
    assert len(names) == len(lines)
    assert sorted(names) == public_names
    assert len(public_names) == len(set(public_names))


@pytest.mark.parametrize("name", public_names)
def test_every_name_is_importable_and_documented(name: str) -> None:
    thing = getattr(ssl_dc, name)
    assert name in dir(ssl_dc)
    if inspect.isclass(thing) and thing.__module__.startswith("ssl_dc."):
        assert thing.__name__ == name
        assert vars(thing).get("__doc__"), f"{name} inherits its documentation"
    elif inspect.isfunction(thing):
        assert thing.__name__ == name
        assert thing.__doc__
    else:
        assert documented_in_its_module(name)


def documented_in_its_module(name: str) -> bool:
    """Whether a text follows the assignment of a name, or what it names is documented."""
    body = ast.parse(inspect.getsource(sys.modules[module_of(name)])).body
    for statement, following in pairwise(body):
        if isinstance(statement, ast.Assign) and [ast.unparse(target) for target in statement.targets] == [name]:
            return isinstance(following, ast.Expr) and isinstance(ast.literal_eval(following.value), str)
    return bool(getattr(ssl_dc, name).__doc__)


def module_of(name: str) -> str:
    (line,) = re.findall(rf"^from (\S+) import {name} as", STUB.read_text(), re.MULTILINE)
    return str(line)


@pytest.mark.parametrize("name", [name for name in public_names if inspect.isclass(getattr(ssl_dc, name))])
def test_every_public_method_is_documented(name: str) -> None:
    for method, thing in vars(getattr(ssl_dc, name)).items():
        if inspect.isfunction(thing) and not method.startswith("_") and thing.__module__.startswith("ssl_dc"):
            assert inspect.getdoc(thing), f"{name}.{method}"


PARTS = [registered for registered in registry().all() if registered.distribution == BUILT_IN]


@pytest.mark.parametrize("registered", [part for part in PARTS if KINDS[part.kind].options], ids=str)
def test_the_built_in_parts_and_their_options_are_public(registered: Registered) -> None:
    things = [registered.options_model(), registered.target()]
    for thing in things:
        if inspect.isclass(thing):  # some targets are functions, which the registry calls
            assert getattr(ssl_dc, thing.__name__) is thing


@pytest.mark.parametrize("kind", KINDS.values(), ids=str)
def test_the_base_classes_of_every_kind_are_public(kind: object) -> None:
    assert isinstance(kind, type(KINDS["data"]))
    for string in (kind.base, kind.options, *kind.also):
        if string and string.startswith("ssl_dc."):
            assert getattr(ssl_dc, string.partition(":")[2]) is import_string(string)


def test_another_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="'ssl_dc' has no attribute 'trainn'"):
        ssl_dc.trainn  # noqa: B018  # the access is what is tested


SHOWN = [
    pytest.param(text, id=f"{path.relative_to(REPOSITORY)}")
    for path in sorted(
        [
            *REPOSITORY.glob("*.md"),
            *REPOSITORY.glob("docs/**/*.md"),
            *REPOSITORY.glob("plugins/*/README.md"),
            *REPOSITORY.glob("plugins/*/ssl_dc_*/*.py"),
            *REPOSITORY.glob("ssl_dc/scaffold/templates/**/*.py.template"),
        ]
    )
    for text in [path.read_text()]
    if "ssl_dc" in text
]


WRITTEN_INTO_FILES = {"image_size", "mean", "std", "resize", "route", "budget", "json"}
"""Keys of the metadata of exported files, which begin with ``ssl_dc.`` too."""


@pytest.mark.parametrize("text", SHOWN)
def test_what_users_and_plugins_are_shown_imports_promised_names_only(text: str) -> None:
    imported = re.findall(r"^\s*(?:from|import) (ssl_dc(?:\.[\w.]+)?)(?= import |$| as )", text, re.MULTILINE)
    assert set(imported) <= PROMISED
    used = set(re.findall(r"(?<![\w.\"])ssl_dc\.(\w+)", text)) - {"testing", "egg", "hookimpl"} - WRITTEN_INTO_FILES
    modules = {path.stem for path in (REPOSITORY / "ssl_dc").iterdir()}
    assert used - modules - set(public_names) == set()


def test_the_version_is_that_of_the_distribution() -> None:
    assert metadata.version("ssl-dc") == ssl_dc.__version__


@pytest.mark.parametrize(
    "code",
    [
        "import ssl_dc",
        "from ssl_dc import hookimpl, Part, PartOptions, DataOptions, Route, RunConfig, ConfigError",
        "import ssl_dc; dir(ssl_dc)",
        "from ssl_dc import registry; list(registry().all())",
    ],
)
def test_what_plugins_need_to_list_their_parts_imports_no_torch(code: str) -> None:
    check = f"import sys; {code}; assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


def test_the_import_itself_imports_nothing() -> None:
    code = "import sys; before = set(sys.modules); import ssl_dc; print(sorted(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=True)
    assert set(ast.literal_eval(done.stdout)) <= {"__future__", "ssl_dc"}


def test_every_error_of_the_library_is_one_a_user_can_mend() -> None:
    assert ssl_dc.ConfigError("x").exit_status == 2
    assert ssl_dc.DataError("x").exit_status == 2
    assert ssl_dc.PluginError("x").exit_status == 2
    assert ssl_dc.RunError("x").exit_status == 1
    for error in (ssl_dc.ConfigError, ssl_dc.DataError, ssl_dc.PluginError, ssl_dc.RunError):
        assert issubclass(error, ssl_dc.SslDcError)
