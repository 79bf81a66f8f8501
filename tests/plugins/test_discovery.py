"""Which plugins are loaded: by the environment, by options of any command, from a single file."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from helpers.command_line import call
from helpers.start_up import start_up
from ssl_dc.errors import PluginError
from ssl_dc.plugins.discovery import BUILT_IN, ONLY_PLUGINS, Plugin, chosen_plugins, file_plugin
from ssl_dc.plugins.registry import Registry, registry

Install = Callable[..., list[Plugin]]

OBJECTIVE = """
import torch
from pydantic import Field
from ssl_dc import Objective, ObjectiveOutput, Part, PartOptions, hookimpl

SSL_DC_INTERFACE = "2.0"


@hookimpl
def ssl_dc_objectives():
    here = __name__
    return [Part(name="{name}", target=here + ":Near", options=here + ":NearOptions", summary="Views near each other.")]


class NearOptions(PartOptions):
    name: str = "{name}"
    temperature: float = Field(2.0, gt=0, description="How much nearness counts.")


class Near(Objective):
    def __init__(self, options, feature_dim):
        super().__init__()
        self.options = options
        self.head = torch.nn.Linear(feature_dim, 8)

    @property
    def weights(self):
        return {{"near": self.options.temperature}}

    def forward(self, views):
        embeddings = [self.head(features).float() for features in views.features]
        return ObjectiveOutput({{"near": (embeddings[0] - embeddings[1]).square().mean()}}, embeddings)
"""

TRAIN = [
    *("train", "--objective", "near", "--objective.temperature", "0.5", "--budget", "0.5", "--data", "digits"),
    *("--limit", "32", "--width", "4", "--image-size", "12", "--epochs", "1", "--batch-size", "16", "--workers", "0"),
    *("--data.test_limit=20", "--training.log_every=1"),
]


@pytest.fixture
def file(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "near_objective.py"
    path.write_text(OBJECTIVE.format(name="near"))
    before = list(sys.path)
    yield path
    sys.path[:] = before
    sys.modules.pop("near_objective", None)


@pytest.fixture
def fresh() -> Iterator[None]:
    """The registry is read anew, before and after."""
    registry.cache_clear()
    yield
    registry.cache_clear()


def distributions(plugins: list[Plugin]) -> list[str]:
    return list(dict.fromkeys(plugin.distribution for plugin in plugins))


def test_the_environment_names_the_packages_that_are_loaded(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    install({name: {"a": OBJECTIVE.format(name=name)} for name in ("acme-losses", "other", "third")})
    everything = distributions(chosen_plugins())
    assert {"acme-losses", "other", "third"} <= set(everything)
    monkeypatch.setenv("SSL_DC_PLUGINS", "third, Acme_Losses")  # names compare as packaging tools compare them
    assert distributions(chosen_plugins()) == [BUILT_IN, "acme-losses", "third"]
    monkeypatch.setenv("SSL_DC_PLUGINS", "")
    assert distributions(chosen_plugins()) == [BUILT_IN]
    monkeypatch.setenv("SSL_DC_PLUGINS", "acme-losses,missing")
    with pytest.raises(
        PluginError, match="SSL_DC_PLUGINS names missing, which brings no plugin; distributions that do: acme-losses"
    ):
        chosen_plugins()


def test_no_plugins_leaves_the_built_in_ones(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    install({"acme": {"a": OBJECTIVE.format(name="near")}})
    for value, loaded in (("1", False), ("yes", False), ("0", True), ("", True)):
        monkeypatch.setenv("SSL_DC_NO_PLUGINS", value)
        assert ("acme" in distributions(chosen_plugins())) == loaded


@pytest.mark.usefixtures("fresh")
def test_the_option_stands_anywhere_and_ends_with_the_call(install: Install) -> None:
    install({"acme": {"a": OBJECTIVE.format(name="near")}})
    for words in (["--no-plugins", "plugins", "list"], ["plugins", "list", "--no-plugins"]):
        assert "acme" not in call(*words).stdout
    assert "acme" in call("plugins", "list").stdout


@pytest.mark.long
def test_a_plugin_of_one_file_is_there_and_trains(file: Path, tmp_path: Path) -> None:
    said = call(*TRAIN, "--output", str(tmp_path / "run"), "--plugin", str(file))
    assert said.exit_code == 0, said.stderr
    assert re.search(r"loss [\d.e-]+ \[near [\d.e-]+ budget ", said.stderr)
    assert '"temperature": 0.5' in (tmp_path / "run" / "config.json").read_text()
    assert call("evaluate", str(tmp_path / "run")).exit_code == 0, "only a training needs the objective"
    without = call("train", "--resume", str(tmp_path / "run"))
    assert without.exit_code == 2
    assert "unknown objective 'near'" in without.stderr
    assert call("--plugin", str(file), "evaluate", str(tmp_path / "run")).exit_code == 0


def test_a_file_in_a_folder_that_python_searches_is_no_other_module(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(file.parent))  # as python -m ssl_dc and torchrun do with the working directory
    assert Registry([file_plugin(file)]).broken == []


def test_the_options_of_a_plugin_are_checked_by_its_own_model(file: Path) -> None:
    wrong = call(*TRAIN, "--plugin", str(file), "--objective.temperature", "-1")
    assert wrong.exit_code == 2
    assert wrong.stderr.startswith("ssl-dc: --objective.temperature: objective.temperature = -1: ")
    assert "above 0" in wrong.stderr
    misspelt = call(*TRAIN, f"--plugin={file}", "--objective.temprature=1")
    assert misspelt.exit_code == 2
    assert "unknown key 'objective.temprature'; did you mean 'objective.temperature'?" in misspelt.stderr


@pytest.mark.parametrize("words", [["--plugin", "nowhere.py"], ["--plugin"], ["--plugin=pyproject.toml"]])
def test_a_file_that_is_no_plugin_is_refused(words: list[str]) -> None:
    said = call("plugins", "list", *words)
    assert said.exit_code == 2
    assert "name a Python file that is there" in said.stderr


def test_a_broken_file_is_left_out_with_its_reason(tmp_path: Path) -> None:
    path = tmp_path / "broken_plugin.py"
    path.write_text("raise RuntimeError('no licence file')\n")
    said = call("plugins", "list", "--plugin", str(path), "--json")
    assert "no licence file" in said.stdout
    assert "broken_plugin" not in sys.modules


def test_a_file_does_not_hide_another_module(tmp_path: Path) -> None:
    path = tmp_path / "json.py"
    path.write_text(OBJECTIVE.format(name="near"))
    found = Registry([file_plugin(path)])
    assert "another module named 'json'" in found.broken[0].reason


@pytest.mark.long
@pytest.mark.usefixtures("fresh")
def test_a_qualified_name_is_kept_in_the_config_and_finds_the_part_again(install: Install, tmp_path: Path) -> None:
    install({name: {"a": OBJECTIVE.format(name="near")} for name in ("acme", "zeta")})
    ambiguous = call(*TRAIN, "--output", str(tmp_path / "none"))
    assert ambiguous.exit_code == 2
    assert "say which: acme:near or zeta:near" in ambiguous.stderr
    run = tmp_path / "run"
    said = call(*TRAIN, "--objective", "zeta:near", "--output", str(run))
    assert said.exit_code == 0, said.stderr
    assert '"name": "zeta:near"' in (run / "config.json").read_text()
    assert call("evaluate", str(run)).exit_code == 0


def test_help_with_twenty_plugins_imports_their_modules_and_nothing_more(install: Install, tmp_path: Path) -> None:
    names = [f"acme-{number}" for number in range(20)]
    install({name: {"a": LIGHT.format(name=name)} for name in names})
    site = next(path for path in sys.path if path.endswith("site"))
    environment = {
        "PYTHONPATH": os.pathsep.join([site, os.environ.get("PYTHONPATH", "")]),
        ONLY_PLUGINS: ",".join(names),
    }
    counted = start_up(tmp_path, "--help", **environment)
    assert "hello-acme-19" in counted.stdout
    assert counted.packages == {"click", "pluggy", "ssl_dc", *(f"fake_acme_{number}_a" for number in range(20))}


LIGHT = """
from ssl_dc import Part, hookimpl

SSL_DC_INTERFACE = "2.0"


@hookimpl
def ssl_dc_commands():
    return [Part(name="hello-{name}", target="missing:command", summary="Say hello.")]
"""
