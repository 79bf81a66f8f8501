"""Plugins that are broken, each in a way of its own: named with the reason; training with what is built in goes on."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import Result

import ssl_dc
from helpers.command_line import call, message, parsed, refused
from helpers.settings import SHORT, as_options
from helpers.training import assert_same_files
from ssl_dc.plugins import discovery
from ssl_dc.plugins.discovery import Plugin, installed_plugins
from ssl_dc.plugins.registry import Registry, registry

PART = """
from ssl_dc import Part, hookimpl

@hookimpl
def ssl_dc_objectives():
    return [Part(name="{name}", target="{target}", options="{options}", summary="Brought by a plugin.")]
"""
VICREG = {"target": "ssl_dc.objectives.vicreg:VICReg", "options": "ssl_dc.objectives.options:VICRegOptions"}

LOOSE_OPTIONS = """
import pydantic

class Loose(pydantic.BaseModel):
    name: str = "loose"
""" + PART.format(name="loose", target=VICREG["target"], options="fake_loose_options_p:Loose")
FAULTY_OPTIONS = PART.format(name="faulty", target=VICREG["target"], options="fake_faulty_options_q:Faulty")
FAULTY_MODULE = """
import ssl_dc

class Faulty(ssl_dc.PartOptions):
    name: str = 3.5
    size: "a type that does not exist" = 1

SSL_DC_INTERFACE = "2.0"
"""

WRONG_DEFAULT = """
import ssl_dc
from pydantic import Field

class Wrong(ssl_dc.PartOptions):
    name: str = "wrong"
    size: int = Field(-3, gt=0, description="Size.")
    share: float = Field(0.5, gt=0, lt=1, description="Share.")
""" + PART.format(name="wrong", target=VICREG["target"], options="fake_wrong_default_p:Wrong")
OWN_FAULT = (
    "objective 'wrong' of wrong-default 1.2: its options refuse the default -3 of their option 'size' (input should be"
    " greater than 0), so the plugin is at fault"
)

BROKEN = {
    "import-fails": {"p": "import a_package_that_is_not_there"},
    "name-taken": {"p": PART.format(name="vicreg", **VICREG), "q": PART.format(name="vicreg", **VICREG)},
    "loose-options": {"p": LOOSE_OPTIONS},
    "faulty-options": {"p": FAULTY_OPTIONS, "q": FAULTY_MODULE},
    "other-interface": {"p": 'SSL_DC_INTERFACE = "3.0"\n' + PART.format(name="future", **VICREG)},
    "hook-raises": {"p": "from ssl_dc import hookimpl\n\n@hookimpl\ndef ssl_dc_objectives():\n    raise SystemExit(7)\n"},
    "options-exit": {
        "p": PART.format(name="leaving", target=VICREG["target"], options="fake_options_exit_q:Leaving"),
        "q": "raise SystemExit(0)",
    },
    "no-such-class": {"p": PART.format(name="absent", target="json:Nothing", options=VICREG["options"])},
}
"""Distribution to the modules of its entry points."""

REASONS = {
    "import-fails": "ModuleNotFoundError: No module named 'a_package_that_is_not_there'",
    "name-taken": "objective 'vicreg' is brought by name-taken twice",
    "loose-options": "not a subclass of ssl_dc.PartOptions",
    "faulty-options": "cannot be loaded from 'fake_faulty_options_q:Faulty'",
    "other-interface": "it is written for version 3.0 of the interface",
    "hook-raises": "SystemExit: 7",
    "options-exit": "SystemExit: 0",
    "no-such-class": "cannot be loaded from 'json:Nothing'",
}


@pytest.fixture
def broken(install: Callable[..., list[Plugin]]) -> Iterator[None]:
    """All of them are installed."""
    install(BROKEN)
    registry.cache_clear()
    yield
    registry.cache_clear()


def train(folder: Path, *words: str) -> Result:
    return call("train", *as_options({"data.name": "digits", **SHORT}), "--output", folder, *words)


def test_each_is_listed_with_its_reason(broken: None) -> None:
    listed = json.loads(call("plugins", "list", "--json").stdout)
    reasons = {each["distribution"]: each["reason"] for each in listed["left_out"]}
    reasons |= {each["distribution"]: each["state"] for each in listed["parts"] if each["state"] != "ready"}
    # whether a class is there shows when it is imported, which listing does not do
    for distribution in BROKEN.keys() - {"no-such-class"}:
        assert REASONS[distribution] in reasons[distribution], distribution
    table = " ".join(call("plugins", "list").stdout.split())
    assert all(distribution in table for distribution in BROKEN)


@pytest.mark.long
def test_training_with_what_is_built_in_is_untouched(install: Callable[..., list[Plugin]], tmp_path: Path) -> None:
    registry.cache_clear()
    assert train(tmp_path / "without").exit_code == 0
    install(BROKEN)
    registry.cache_clear()
    result = train(tmp_path / "with")
    assert result.exit_code == 0, result.stderr
    names = ("config.json", "metrics.jsonl", "model.safetensors", "result.json")
    assert_same_files(tmp_path / "without", tmp_path / "with", *names)
    registry.cache_clear()


@pytest.mark.parametrize(
    ("objective", "said"),
    [
        ("anything", ["unknown objective 'anything'", "left out: p of import-fails", REASONS["import-fails"]]),
        ("future", ["left out: p of other-interface", REASONS["other-interface"]]),
        ("loose", [REASONS["loose-options"]]),
        ("faulty", [REASONS["faulty-options"]]),
        ("leaving", ["cannot be loaded from 'fake_options_exit_q:Leaving'", REASONS["options-exit"]]),
        ("absent", ["objective 'absent' of no-such-class 1.2", REASONS["no-such-class"]]),
    ],
)
def test_asking_for_its_part_says_why_it_is_not_there(
    broken: None, tmp_path: Path, objective: str, said: list[str]
) -> None:
    result = train(tmp_path / "run", "--objective", objective)
    assert result.exit_code == 2
    for words in said:
        assert words in result.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("package", ["import-fails", "other-interface"])
def test_checking_it_says_why_it_was_left_out_and_suggests_nothing(broken: None, package: str) -> None:
    said = message("plugins", "check", package)
    assert f"no part comes from {package!r}: its plugin was left out: {REASONS[package]}" in said
    assert "Did you mean" not in said
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize(
    "words",
    [
        ["config", "schema"],
        ["config", "show"],
        ["plugins", "show", "vicreg"],
        ["train", "--help"],
        ["evaluate", "--help"],
        ["--help"],
    ],
    ids=" ".join,
)
def test_every_other_command_works(broken: None, words: list[str]) -> None:
    result = call(*words)
    assert result.exit_code == 0, result.stderr


def test_a_run_of_a_part_that_is_gone_says_so(copied_run: Path) -> None:
    config = json.loads((copied_run / "config.json").read_text())
    config["gating"]["name"] = "acme"
    (copied_run / "config.json").write_text(json.dumps(config))
    result = call("evaluate", copied_run)
    assert result.exit_code == 2
    assert "unknown gating scheme 'acme'" in result.stderr


def test_a_list_of_entry_points_that_cannot_be_read_is_named(install: Callable[..., list[Plugin]], tmp_path: Path) -> None:
    install({"unreadable": {}})
    (tmp_path / "site" / "unreadable-1.2.dist-info" / "entry_points.txt").write_bytes(b"\xff\xfe[ssl_dc")
    registry = Registry(installed_plugins())
    (broken,) = [each for each in registry.broken if each.distribution == "unreadable"]
    assert "its entry_points.txt cannot be read: UnicodeDecodeError" in broken.reason
    assert registry.has("objective", "vicreg")


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("x = 1", "it brings nothing: no function in it is marked @ssl_dc.hookimpl"),
        (
            "import ssl_dc\n@ssl_dc.hookimpl\ndef ssl_dc_objectives():\n    return 42",
            "ssl_dc_objectives must return a list",
        ),
    ],
)
def test_a_plugin_that_brings_nothing_says_so(install: Callable[..., list[Plugin]], source: str, reason: str) -> None:
    registry = Registry(install({"empty": {"it": source}}))
    assert [reason in broken.reason for broken in registry.broken if broken.distribution == "empty"] == [True]


@pytest.fixture
def without_its_plugins(copied_run: Path) -> Path:
    """A run whose objective, optimiser, views and tracker come from plugins that are not installed."""
    config = json.loads((copied_run / "config.json").read_text())
    for kind in ("objective", "optimizer", "views", "tracker"):
        config[kind] |= {"name": f"their-{kind}", "a_setting_of_theirs": [1, 2]}
    (copied_run / "config.json").write_text(json.dumps(config))
    return copied_run


@pytest.mark.long
def test_what_only_a_training_uses_need_not_be_installed_to_use_the_model(
    finished_run: ssl_dc.Run, without_its_plugins: Path
) -> None:
    run = without_its_plugins
    assert parsed("cost", run) == parsed("cost", finished_run.folder)
    for words in ([], ["--budget", "0.4"], ["--data-root", run]):  # digits need no folder
        assert parsed("evaluate", run, *words) == parsed("evaluate", finished_run.folder, *words)
    settings = parsed("compare", finished_run.folder, run)["settings"]
    assert settings["objective.name"] == {"run": "vicreg", "copied": "their-objective"}
    assert settings["views.a_setting_of_theirs"] == {"run": None, "copied": [1, 2]}
    kept = ssl_dc.load(run)
    assert ssl_dc.load(ssl_dc.save(kept, run.parent / "saved")).config == kept.config


def test_a_training_needs_them_and_says_which(without_its_plugins: Path) -> None:
    said = refused("train", "--resume", without_its_plugins)
    for kind in ("objective", "optimizer", "views", "tracker"):
        assert f"'their-{kind}'" in said


@pytest.mark.parametrize("words", [["train", "--dry-run"], ["config", "show"], ["--version"], ["evaluate", "nowhere"]])
def test_a_checkout_that_is_not_installed_says_so_in_one_sentence(
    monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    monkeypatch.setattr(discovery, "installed_plugins", list)
    monkeypatch.setattr("ssl_dc.cli.is_distribution", lambda: False)
    registry.cache_clear()
    said = message(*words)
    with pytest.raises(ssl_dc.PluginError) as caught:
        ssl_dc.train({"budget.target": 0.3})
    registry.cache_clear()
    assert said == f"ssl-dc: {caught.value}\n"
    assert "is not installed: run python -m pip install " in said


@pytest.fixture
def wrong_default(install: Callable[..., list[Plugin]]) -> Iterator[None]:
    """A plugin whose options refuse a default of their own."""
    install({"wrong-default": {"p": WRONG_DEFAULT}})
    registry.cache_clear()
    yield
    registry.cache_clear()


@pytest.mark.usefixtures("wrong_default")
def test_a_default_that_its_own_options_refuse_is_the_fault_of_the_plugin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    train = ["train", "--dry-run", "--objective", "wrong", "--budget", "0.3"]
    assert message(*train) == f"ssl-dc: --objective: {OWN_FAULT}\n"
    users = message(*train, "--objective.size", "4", "--objective.share", "7")
    assert "objective.share = 7" in users, "what the user says is the user's fault"
    assert "at fault" not in users
    assert OWN_FAULT in {part["state"] for part in parsed("plugins", "list")["parts"]}
    rows = json.loads(call("plugins", "check", "wrong-default", "--json").stdout)
    failed = {row["check"]: row["message"] for row in rows if row["state"] == "failed"}
    assert failed == {"defaults_are_valid": OWN_FAULT}
    others = {row["message"] for row in rows if row["state"] == "does not apply"}
    assert "its options are at fault, as another check says" in others
