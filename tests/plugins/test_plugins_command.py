"""``ssl-dc plugins list`` and ``show``: what they say of parts that several packages bring, and what they import."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from helpers.command_line import call, done, message, parsed
from helpers.settings import TINY, config_of
from helpers.start_up import start_up
from ssl_dc.api import _possible_folders
from ssl_dc.plugins.discovery import Plugin
from ssl_dc.plugins.registry import registry

SAME = """
from ssl_dc import Part, hookimpl

@hookimpl
def ssl_dc_objectives():
    options = "ssl_dc.objectives.options:VICRegOptions"
    names = ("same", "vicreg")
    return [Part(name=name, target="json:JSONDecoder", options=options, summary="Of {package}.") for name in names]
"""


@pytest.fixture
def two_packages(install: Callable[..., list[Plugin]]) -> Iterator[None]:
    """Two packages bring an objective of the same name, and one of the name of a built-in one."""
    install({package: {"a": SAME.format(package=package)} for package in ("acme", "zeta")})
    registry.cache_clear()
    yield
    registry.cache_clear()


def shown(*words: str) -> list[tuple[str, str]]:
    return [(part["name"], part["distribution"]) for part in parsed("plugins", "show", *words)]


@pytest.mark.usefixtures("two_packages")
def test_a_name_that_two_packages_bring_is_shown_of_each_as_it_is_to_be_written() -> None:
    both = [("acme:same", "acme"), ("zeta:same", "zeta")]
    assert shown("same") == both
    assert shown("same", "--kind", "objective") == both
    table = call("plugins", "show", "same").stdout
    assert "objective acme:same, of acme 1.2: Of acme." in table
    assert "objective zeta:same, of zeta 1.2: Of zeta." in table


@pytest.mark.usefixtures("two_packages")
@pytest.mark.parametrize(
    ("name", "part"),
    [("zeta:same", ("zeta:same", "zeta")), ("vicreg", ("vicreg", "ssl-dc")), ("acme:vicreg", ("acme:vicreg", "acme"))],
)
def test_a_name_that_means_one_part_shows_that_one(name: str, part: tuple[str, str]) -> None:
    assert shown(name) == [part]


@pytest.mark.usefixtures("two_packages")
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["sme"], "ssl-dc: unknown part 'sme'; there are: acme:same, "),
        (
            ["same", "--kind", "gating"],
            "ssl-dc: unknown gating scheme 'same'; there are: convnet_aig, dgnet, dgnet_dual, dgnet_spatial, none",
        ),
        (["other:same"], "ssl-dc: unknown part 'other:same'; there are: acme:same, "),
    ],
    ids=" ".join,
)
def test_a_name_that_nothing_brings_is_an_error_that_lists_the_names(words: list[str], said: str) -> None:
    answered = call("plugins", "show", *words)
    assert answered.exit_code == 2
    assert answered.stderr.startswith(said)


def test_a_part_without_options_is_said_to_have_none() -> None:
    said = done("plugins", "show", "separate")
    assert said.endswith("It has no options.\n")
    assert "allowed" not in said


@pytest.mark.parametrize("words", [["list"], ["list", "--json"], ["show", "vicreg"]], ids=" ".join)
def test_listing_imports_no_part(words: list[str], tmp_path: Path) -> None:
    counted = start_up(tmp_path, "plugins", *words)
    assert "vicreg" in counted.stdout or "objective.invariance" in counted.stdout
    assert not counted.packages & {"PIL", "accelerate", "numpy", "sklearn", "torch", "torchvision"}


@pytest.mark.usefixtures("two_packages")
@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("vicrg", "Did you mean 'ssl-dc', which brings 'vicreg'?"),
        ("dgnet", "'dgnet' is a part of ssl-dc: ssl-dc plugins check ssl-dc"),
        ("zetta", "Did you mean 'zeta'?"),
        ("same", "'same' is a part of acme and zeta: ssl-dc plugins check acme"),
    ],
)
def test_a_package_that_is_not_there_names_the_nearest(name: str, said: str) -> None:
    assert f"no part comes from {name!r}" in (text := message("plugins", "check", name))
    assert text.endswith(f" {said}\n")


@pytest.mark.usefixtures("two_packages")
def test_the_default_folder_of_a_run_has_no_colon_of_a_part() -> None:
    config = config_of({**TINY, "objective.name": "acme:vicreg"})
    assert next(_possible_folders(config)) == Path("runs/digits-acme-vicreg-dgnet-0.3-seed0")
