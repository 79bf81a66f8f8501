"""The face of the library."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from importlib import metadata

import pytest

import ssl_dc
from ssl_dc import __all__ as public_names


def test_names_are_sorted_and_said_once() -> None:
    assert public_names == sorted(public_names)
    assert len(public_names) == len(set(public_names))


@pytest.mark.parametrize("name", public_names)
def test_every_name_is_importable_and_documented(name: str) -> None:
    thing = getattr(ssl_dc, name)
    assert thing.__doc__
    assert name in dir(ssl_dc)
    if inspect.isclass(thing) or inspect.isfunction(thing):
        assert thing.__name__ == name
        assert thing.__module__.startswith("ssl_dc.")
        own = vars(thing).get("__doc__") if inspect.isclass(thing) else thing.__doc__
        assert own, f"{name} inherits its documentation"


@pytest.mark.parametrize("name", [name for name in public_names if inspect.isclass(getattr(ssl_dc, name))])
def test_every_public_method_is_documented(name: str) -> None:
    for method, thing in vars(getattr(ssl_dc, name)).items():
        if inspect.isfunction(thing) and not method.startswith("_") and thing.__module__.startswith("ssl_dc"):
            assert thing.__doc__, f"{name}.{method}"


def test_another_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="'ssl_dc' has no attribute 'trainn'"):
        ssl_dc.trainn  # noqa: B018  # the access is what is tested


def test_what_type_checkers_see_is_what_there_is() -> None:
    source = inspect.getsource(ssl_dc)
    block = source.partition("if TYPE_CHECKING:\n")[2].partition("\n\n")[0]
    seen = {name for line in block.splitlines() for name in re.split(r",\s*", line.partition(" import ")[2])}
    assert seen == set(public_names)


def test_the_version_is_that_of_the_distribution() -> None:
    assert metadata.version("ssl-dc") == ssl_dc.__version__


@pytest.mark.parametrize(
    "code",
    [
        "import ssl_dc",
        "from ssl_dc import hookimpl, Part, PartOptions, DataOptions, Route, RunConfig, ConfigError",
        "import ssl_dc; dir(ssl_dc)",
    ],
)
def test_what_plugins_need_to_list_their_parts_imports_no_torch(code: str) -> None:
    check = f"import sys; {code}; assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_every_error_of_the_library_is_one_a_user_can_mend() -> None:
    assert ssl_dc.ConfigError("x").exit_status == 2
    assert ssl_dc.DataError("x").exit_status == 2
    assert ssl_dc.PluginError("x").exit_status == 2
    assert ssl_dc.RunError("x").exit_status == 1
    for error in (ssl_dc.ConfigError, ssl_dc.DataError, ssl_dc.PluginError, ssl_dc.RunError):
        assert issubclass(error, ssl_dc.SslDcError)
