"""Plugins are loaded each on its own: what is broken is left out with its reason, everything else works."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from ssl_dc.assemble import build_network, build_objective
from ssl_dc.config import override_layer, resolve
from ssl_dc.errors import ConfigError, PluginError
from ssl_dc.plugins.discovery import BUILT_IN, Plugin
from ssl_dc.plugins.kinds import KINDS
from ssl_dc.plugins.registry import Registry, registry

Install = Callable[..., list[Plugin]]

BUILT_IN_PARTS = [registered for registered in registry().all() if registered.distribution == BUILT_IN]

GOOD = """
from ssl_dc import Part, hookimpl

@hookimpl
def ssl_dc_objectives():
    return [
        Part(
            name="{name}",
            target="json:JSONDecoder",
            options="ssl_dc.objectives.options:VICRegOptions",
            summary="A part for a test.",
        )
    ]
"""


def reason_of(found: Registry, distribution: str) -> str:
    (broken,) = [broken for broken in found.broken if broken.distribution == distribution]
    assert broken.version == "1.2"
    return broken.reason


def test_parts_of_an_installed_plugin_appear_with_their_origin(install: Install) -> None:
    found = Registry(install({"acme-losses": {"objectives": GOOD.format(name="acme")}}))
    assert found.broken == []
    acme = found.find("objective", "acme")
    assert (acme.kind, acme.distribution, acme.version) == ("objective", "acme-losses", "1.2")
    assert found.names("objective") == ["acme", "barlow_twins", "vicreg"]
    import json

    assert acme.target() is json.JSONDecoder


def test_built_in_plugins_come_first_then_by_distribution_and_name(install: Install) -> None:
    good = GOOD.format(name="x")
    plugins = install({"zeta": {"a": good}, "acme": {"b": good, "a": good}})
    ours = [(plugin.distribution, plugin.name) for plugin in plugins if plugin.distribution == BUILT_IN]
    others = [(plugin.distribution, plugin.name) for plugin in plugins if plugin.distribution in ("zeta", "acme")]
    assert ours == sorted(ours)
    assert len(ours) == len(KINDS) - 1  # no watcher is built in
    assert others == [("acme", "a"), ("acme", "b"), ("zeta", "a")]
    assert [plugin.distribution for plugin in plugins[: len(ours)]] == [BUILT_IN] * len(ours)


def test_a_name_that_two_packages_bring_must_be_qualified(install: Install) -> None:
    found = Registry(install({"zeta": {"a": GOOD.format(name="same")}, "acme": {"a": GOOD.format(name="same")}}))
    assert found.broken == []
    with pytest.raises(PluginError, match="'same' is brought by acme and zeta; say which: acme:same or zeta:same"):
        found.find("objective", "same")
    assert not found.has("objective", "same")
    assert [found.find("objective", f"{package}:same").distribution for package in ("acme", "zeta")] == ["acme", "zeta"]
    assert found.names("objective") == ["acme:same", "barlow_twins", "vicreg", "zeta:same"]


def test_a_built_in_part_keeps_its_name_and_the_other_is_there_by_its_qualified_one(install: Install) -> None:
    found = Registry(install({"aaa": {"a": GOOD.format(name="vicreg")}}))
    assert found.find("objective", "vicreg").distribution == BUILT_IN
    assert found.find("objective", "aaa:vicreg").distribution == "aaa"
    assert found.names("objective") == ["aaa:vicreg", "barlow_twins", "vicreg"]


def test_a_package_that_brings_a_name_twice_keeps_the_first(install: Install) -> None:
    found = Registry(install({"acme": {"a": GOOD.format(name="same"), "b": GOOD.format(name="same")}}))
    assert found.find("objective", "same").distribution == "acme"
    assert "'same' is brought by acme twice" in reason_of(found, "acme")


@pytest.mark.parametrize("name", ["", "a b", "acme:vicreg", "1st", "-x"])
def test_a_name_that_cannot_be_written_is_left_out(install: Install, name: str) -> None:
    found = Registry(install({"acme": {"a": GOOD.format(name=name)}}))
    assert found.names("objective") == ["barlow_twins", "vicreg"]
    assert "a name is a letter" in reason_of(found, "acme")


@pytest.mark.parametrize(
    ("declared", "said"),
    [
        ("'2.0'", None),
        ("'1.0'", "it loads plugins for 2.0 to 2.0"),
        ("'2.1'", "written for version 2.1"),
        ("'3.0'", "written for version 3.0"),
        ("'new'", "is not a version"),
        ("1", "is not a version"),
    ],
)
def test_a_plugin_for_another_interface_is_left_out(install: Install, declared: str, said: str | None) -> None:
    found = Registry(install({"acme": {"a": GOOD.format(name="acme") + f"\nSSL_DC_INTERFACE = {declared}\n"}}))
    assert ("acme" in found.names("objective")) == (said is None)
    assert said is None or said in reason_of(found, "acme")


RAISES_AT_IMPORT = "raise RuntimeError('no licence file')"
MISSING_DEPENDENCY = "import a_package_that_is_not_there"
RAISES_IN_HOOK = """
from ssl_dc import hookimpl

@hookimpl
def ssl_dc_objectives():
    raise ZeroDivisionError("division by zero in the hook")
"""
MISSPELT_HOOK = GOOD.format(name="never").replace("def ssl_dc_objectives", "def ssl_dc_objektives")
FOREIGN_HOOK = GOOD.format(name="never").replace("def ssl_dc_objectives", "def pytest_addoption")
UNEXPECTED_ARGUMENT = GOOD.format(name="never").replace("ssl_dc_objectives()", "ssl_dc_objectives(config)")
NOT_A_PART = """
from ssl_dc import hookimpl

@hookimpl
def ssl_dc_objectives():
    return [("acme", "json:JSONDecoder")]
"""
RETURNS_NOTHING = NOT_A_PART.replace('return [("acme", "json:JSONDecoder")]', "return None")


@pytest.mark.parametrize(
    ("source", "said"),
    [
        pytest.param(RAISES_AT_IMPORT, "no licence file", id="raises at import"),
        pytest.param(MISSING_DEPENDENCY, "a_package_that_is_not_there", id="missing dependency"),
        pytest.param("def broken(:", "SyntaxError", id="syntax error"),
        pytest.param(RAISES_IN_HOOK, "division by zero in the hook", id="raises in hook"),
        pytest.param(
            MISSPELT_HOOK,
            "it implements the hook ssl_dc_objektives, which does not exist; did you mean ssl_dc_objectives?",
            id="misspelt hook",
        ),
        pytest.param(FOREIGN_HOOK, "the hook pytest_addoption, which does not exist; there are: ssl_dc_", id="no hook"),
        pytest.param(UNEXPECTED_ARGUMENT, "hooks are called without arguments", id="argument that the hook has not"),
        pytest.param(NOT_A_PART, "tuple", id="not a part"),
        pytest.param(RETURNS_NOTHING, "NoneType", id="returns nothing"),
    ],
)
def test_a_broken_plugin_is_left_out_with_its_reason_and_others_work(install: Install, source: str, said: str) -> None:
    plugins = install(
        {"acme": {"a": GOOD.format(name="acme")}, "broken": {"a": source}, "zeta": {"a": GOOD.format(name="zeta")}}
    )
    found = Registry(plugins)
    assert [broken.distribution for broken in found.broken] == ["broken"], found.broken
    assert said in reason_of(found, "broken")
    assert found.names("objective") == ["acme", "barlow_twins", "vicreg", "zeta"]
    assert "never" not in found.names("objective")


def test_a_broken_plugin_of_a_distribution_leaves_its_other_plugins(install: Install) -> None:
    found = Registry(install({"acme": {"a": RAISES_AT_IMPORT, "b": GOOD.format(name="acme")}}))
    assert [(broken.distribution, broken.plugin) for broken in found.broken] == [("acme", "a")]
    assert "acme" in found.names("objective")


def test_an_unknown_part_lists_near_match_all_names_and_what_was_left_out(install: Install) -> None:
    found = Registry(install({"broken": {"losses": RAISES_AT_IMPORT}}))
    with pytest.raises(PluginError) as caught:
        found.find("objective", "vicregg")
    message = str(caught.value)
    assert "unknown objective 'vicregg'" in message
    assert "Did you mean 'vicreg'?" in message
    assert "barlow_twins, vicreg" in message
    assert "losses of broken" in message
    assert "no licence file" in message


def test_a_part_whose_class_cannot_be_imported_fails_when_chosen_naming_it(install: Install) -> None:
    source = GOOD.format(name="acme").replace("json:JSONDecoder", "json:Nothing")
    found = Registry(install({"acme": {"a": source}}))
    assert found.broken == []
    with pytest.raises(PluginError, match=r"'acme' of acme 1\.2 cannot be loaded from 'json:Nothing'"):
        found.find("objective", "acme").target()


def test_options_must_be_part_options(install: Install) -> None:
    source = GOOD.format(name="acme").replace("ssl_dc.objectives.options:VICRegOptions", "json:JSONDecoder")
    found = Registry(install({"acme": {"a": source}}))
    with pytest.raises(PluginError, match=r"'acme' of acme.*PartOptions"):
        found.find("objective", "acme").options_model()


def test_no_built_in_plugin_is_broken() -> None:
    assert [broken for broken in registry().broken if broken.distribution == BUILT_IN] == []


def built_with(setting: str) -> None:
    config = resolve([override_layer([setting])]).config
    build_objective(config, build_network(config).encoder.feature_dim)


MISBEHAVED = """
from ssl_dc import {base}, Part, hookimpl


@hookimpl
def ssl_dc_{hook}():
    return [Part(name="odd", target=__name__ + ":Odd", options=__name__ + ":OddOptions", summary="Misbehaves.")]


class OddOptions({base}):
    name: str = "odd"


def Odd(*arguments):
    {body}
"""


@pytest.mark.parametrize(
    ("hook", "base", "body", "said"),
    [
        ("objectives", "PartOptions", "return 1 / 0", "could not be built: ZeroDivisionError: division by zero"),
        ("objectives", "PartOptions", "return 'x'", "must be a Objective, not a str"),
        ("gatings", "PartOptions", "", "are not a subclass of ssl_dc.GatingOptions"),
        ("gatings", "GatingOptions", "return 1", "must be a GatingScheme, not a int"),
        ("norms", "PartOptions", "return 1", "must be a NormPolicy, not a int"),
        ("objectives", "PartOptions", "raise SystemExit(0)", "could not be built: SystemExit: 0"),
        ("backbones", "PartOptions", "raise KeyError('x')", "could not be built: KeyError: 'x'"),
        ("encoders", "PartOptions", "return arguments[1](lambda site: None)", "must be a Encoder, not a ResNet18"),
        ("optimizers", "PartOptions", "", "are not a subclass of ssl_dc.OptimizerOptions"),
        ("data", "PartOptions", "", "are not a subclass of ssl_dc.DataOptions"),
    ],
)
def test_a_part_that_is_not_what_its_kind_must_be_is_named(
    install: Install, hook: str, base: str, body: str, said: str
) -> None:
    install({"acme": {"a": MISBEHAVED.format(hook=hook, base=base, body=body or "pass")}})
    registry.cache_clear()
    kind = next(kind for kind in KINDS.values() if kind.hook == f"ssl_dc_{hook}")
    try:
        with pytest.raises(ConfigError) as caught:
            built_with(f"{kind.name}=odd")
    finally:
        registry.cache_clear()
    assert f"{kind.label} 'odd' of acme 1.2" in str(caught.value)
    assert said in str(caught.value)
