"""``ssl-dc doctor``."""

from __future__ import annotations

import json
from importlib import metadata
from pathlib import Path

import pytest
import torch
from click.shell_completion import shell_complete

from helpers.command_line import done, parsed
from ssl_dc import doctor
from ssl_dc.cli import main
from ssl_dc.doctor import diagnose


def test_doctor_says_what_there_is() -> None:
    found = parsed("doctor")
    assert (
        found["versions"]["torch"] == torch.__version__.partition("+")[0] or found["versions"]["torch"] == torch.__version__
    )
    assert found["versions"]["ssl-dc"] == metadata.version("ssl-dc")
    assert "cpu" in found["devices"]
    assert set(found["optional"]) >= {"onnx", "plots"}
    assert "test" not in found["optional"]
    assert any(name.startswith("ssl-dc ") for name in found["plugins"])
    said = done("doctor")
    assert "What will be slow, and why:" in said


def test_doctor_says_what_will_be_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_DC_NO_KERNEL", "1")
    monkeypatch.setattr(doctor, "available_devices", lambda: ["cpu"])
    monkeypatch.setattr(doctor, "LEAST_SHARED_MEMORY", 2**60)
    monkeypatch.setattr(doctor, "SHARED_MEMORY", doctor.Path("/"))
    monkeypatch.setattr(
        doctor, "choose", lambda _: (type("Backend", (), {"name": "torch"}), {"native": "there is no compiler"})
    )
    monkeypatch.setattr(torch, "get_num_threads", lambda: 0)
    slow = "\n".join(diagnose().slow)
    for words in ("No GPU is found", "there is no compiler", "torch uses 0 of", "--shm-size=1g"):
        assert words in slow


def test_doctor_names_what_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_version", lambda _: None)
    (table,) = (table for table in diagnose().tables() if table.title == "optional packages")
    assert ("plots", "matplotlib is not installed: pip install 'ssl-dc[plots]'") in table.rows


def test_a_broken_plugin_is_told(tmp_path: Path) -> None:
    broken = tmp_path / "broken_plugin.py"
    broken.write_text("raise RuntimeError('out of order')")
    found = json.loads(done("--plugin", broken, "doctor", "--json"))
    (reason,) = found["left_out"].values()
    assert "out of order" in reason
    assert f"The plugin broken_plugin of {broken} is broken, and its parts are left out." in found["slow"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_complete_as_the_readme_says(
    shell: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the variable that the README names."""
    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    assert f"{shell}_source" in readme
    completed = shell_complete(main, {}, "ssl-dc", "_SSL_DC_COMPLETE", f"{shell}_source")
    assert completed == 0
    assert "_SSL_DC_COMPLETE" in capsys.readouterr().out
    monkeypatch.setenv("COMP_WORDS", "ssl-dc train --tracker wan")
    monkeypatch.setenv("COMP_CWORD", "wan" if shell == "fish" else "3")
    assert shell_complete(main, {}, "ssl-dc", "_SSL_DC_COMPLETE", f"{shell}_complete") == 0
    assert "wandb" in capsys.readouterr().out
