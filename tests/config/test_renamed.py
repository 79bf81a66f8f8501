"""Settings by their old names: taken with a warning in what users write, for good in saved runs."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import pytest
from click.testing import CliRunner

from ssl_dc.cli import main
from ssl_dc.config import dump, override_layer, read_complete, resolve
from ssl_dc.config.layers import nested
from ssl_dc.config.renamed import RENAMED
from ssl_dc.errors import OldNameWarning


@pytest.mark.parametrize("old", RENAMED)
def test_an_old_name_does_what_the_new_one_does_and_warns(old: str) -> None:
    value = "tensorboard"
    with pytest.warns(OldNameWarning, match=f"--set {old}: {old} is {RENAMED[old].key} now; the old name goes in"):
        found = resolve([override_layer([f"{old}={value}"])])
    assert found.config == resolve([override_layer([f"{RENAMED[old].key}={value}"])]).config
    assert found.provenance[RENAMED[old].key] == f"--set {old}"


def test_a_new_name_is_taken_in_silence() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        resolve([override_layer(["tracker=tensorboard"])])


def test_a_saved_run_with_an_old_name_is_read_for_good_and_in_silence(tmp_path: Path) -> None:
    saved = json.loads(dump(resolve([override_layer(["tracker=tensorboard"])]).config))
    saved["training"]["tracker"] = saved.pop("tracker")["name"]
    (tmp_path / "config.json").write_text(json.dumps(saved))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_complete(tmp_path / "config.json").tracker.name == "tensorboard"


def test_the_command_line_warns_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(json.dumps(nested({"training.tracker": "tensorboard"})))
    said = CliRunner().invoke(main, ["config", "validate", str(tmp_path / "run.yaml")])
    assert said.exit_code == 0
    assert said.stderr.count("\n") == 1
    assert said.stderr.startswith(f"ssl-dc: {tmp_path / 'run.yaml'}:1: training.tracker is tracker.name now")
