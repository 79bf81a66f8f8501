"""Plugins are loaded each on its own: what is broken is left out with its reason, everything else works."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from ssl_dc.config import dump, file_layer, override_layer, resolve
from ssl_dc.errors import PluginError
from ssl_dc.parts import KINDS, PartOptions
from ssl_dc.plugins import BUILT_IN, HOOK_OF_KIND, LABEL, Plugin, Registered, Registry, installed_plugins, registry

BUILT_IN_PARTS = [registered for registered in registry().all() if registered.distribution == BUILT_IN]

GOOD = """
from ssl_dc import Part, hookimpl

@hookimpl
def ssl_dc_objectives():
    return [Part("{name}", "json:JSONDecoder", "ssl_dc.objectives.options:VICRegOptions", "A part for a test.")]
"""

Install = Callable[..., list[Plugin]]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Installs fake distributions (name to {entry point: source of its module}); gives all plugins that there then are."""
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(str(site))

    def put(distributions: Mapping[str, Mapping[str, str]]) -> list[Plugin]:
        for distribution, modules in distributions.items():
            info = site / f"{distribution.replace('-', '_')}-1.2.dist-info"
            info.mkdir()
            (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.2\n")
            lines = []
            for entry_point, source in modules.items():
                module = f"fake_{distribution}_{entry_point}".replace("-", "_")
                (site / f"{module}.py").write_text(source)
                lines.append(f"{entry_point} = {module}\n")
            (info / "entry_points.txt").write_text("[ssl_dc]\n" + "".join(lines))
        return installed_plugins()

    yield put
    for module in [name for name in sys.modules if name.startswith("fake_")]:
        del sys.modules[module]


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
    assert len(ours) == len(KINDS)
    assert others == [("acme", "a"), ("acme", "b"), ("zeta", "a")]
    assert [plugin.distribution for plugin in plugins[: len(ours)]] == [BUILT_IN] * len(ours)


def test_a_name_that_is_taken_goes_to_the_first_distribution(install: Install) -> None:
    found = Registry(install({"zeta": {"a": GOOD.format(name="same")}, "acme": {"a": GOOD.format(name="same")}}))
    assert found.find("objective", "same").distribution == "acme"
    reason = reason_of(found, "zeta")
    assert "'same'" in reason
    assert "acme" in reason


def test_a_built_in_part_cannot_be_replaced(install: Install) -> None:
    found = Registry(install({"aaa": {"a": GOOD.format(name="vicreg")}}))
    assert found.find("objective", "vicreg").distribution == BUILT_IN
    assert "'vicreg'" in reason_of(found, "aaa")


RAISES_AT_IMPORT = "raise RuntimeError('no licence file')"
MISSING_DEPENDENCY = "import a_package_that_is_not_there"
RAISES_IN_HOOK = """
from ssl_dc import hookimpl

@hookimpl
def ssl_dc_objectives():
    raise ZeroDivisionError("division by zero in the hook")
"""
MISSPELT_HOOK = GOOD.format(name="never").replace("def ssl_dc_objectives", "def ssl_dc_objektives")
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
        pytest.param(MISSPELT_HOOK, "ssl_dc_objektives", id="misspelt hook"),
        pytest.param(UNEXPECTED_ARGUMENT, "config", id="argument that the hook has not"),
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


def test_every_kind_has_a_hook_and_a_label_and_a_built_in_part() -> None:
    assert set(HOOK_OF_KIND) == set(LABEL) == set(KINDS)
    assert {registered.kind for registered in BUILT_IN_PARTS} == set(KINDS)


def test_no_built_in_plugin_is_broken() -> None:
    assert [broken for broken in registry().broken if broken.distribution == BUILT_IN] == []


def part_id(registered: Registered) -> str:
    return f"{registered.kind}-{registered.part.name}"


@pytest.mark.parametrize("registered", BUILT_IN_PARTS, ids=part_id)
def test_a_built_in_part_can_be_loaded_and_its_options_bear_its_name(registered: Registered) -> None:
    assert callable(registered.target())
    options = registered.options_model()
    assert issubclass(options, PartOptions)
    assert options.model_fields["name"].default == registered.part.name
    assert options().name == registered.part.name
    assert registered.part.summary.endswith(".")
    assert "\n" not in registered.part.summary


@pytest.mark.parametrize("registered", BUILT_IN_PARTS, ids=part_id)
def test_a_config_with_a_built_in_part_survives_being_saved(registered: Registered, tmp_path: Path) -> None:
    config = resolve([override_layer([f"{registered.kind}={registered.part.name}"])]).config
    assert type(getattr(config, registered.kind)) is registered.options_model()
    file = tmp_path / "config.json"
    file.write_text(dump(config))
    assert resolve([file_layer(file)]).config == config


@pytest.mark.parametrize("registered", BUILT_IN_PARTS, ids=part_id)
def test_every_option_of_a_built_in_part_is_described(registered: Registered) -> None:
    undescribed = [
        name for name, field in registered.options_model().model_fields.items() if name != "name" and not field.description
    ]
    assert undescribed == []


def test_options_of_built_in_parts_import_no_torch() -> None:
    code = """
import sys
from ssl_dc.plugins import registry
for registered in registry().all():
    if registered.distribution == "ssl-dc":
        registered.options_model()
        assert "torch" not in sys.modules, registered
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
