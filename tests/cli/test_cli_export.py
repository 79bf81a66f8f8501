"""``ssl-dc export``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import ssl_dc
from helpers.command_line import done, parsed, refused
from ssl_dc.cli import export as export_command
from ssl_dc.export.exported_file import FORMATS
from ssl_dc.export.onnx_files import session_of


@pytest.mark.parametrize("share", ["nan", "inf", "-0.1", "1.1", "few"])
def test_export_refuses_shares_that_are_none(share: str, gated_run: Path) -> None:
    assert "Invalid value for '--static'" in refused("export", gated_run, "--route", "gated", "--static", share)


@pytest.mark.long
def test_export_writes_into_the_run_and_says_so(gated_run: Path) -> None:
    written = parsed("export", gated_run, "--format", "torch")
    assert written["file"] == str(gated_run / "dense.pt2")
    assert written["bytes"] == (gated_run / "dense.pt2").stat().st_size > 0
    assert f"written: {gated_run / 'gated.pt2'} (" in done("export", gated_run, "--route", "gated", "--format", "torch")


@pytest.mark.long
@pytest.mark.usefixtures("timed_briefly")
def test_static_export_compares_the_networks(gated_run: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    path = tmp_path / "static.onnx"
    networks = parsed("export", gated_run, "--route", "gated", "--static", "0.5", "-o", path)["networks"]
    assert set(networks) == {"dense", "gated", "static"}
    assert all(0 < each["p10"] <= each["milliseconds"] <= each["p90"] for each in networks.values())
    assert networks["static"]["parameters"] < networks["dense"]["parameters"]
    assert networks["static"]["macs"] < networks["dense"]["macs"]
    assert path.stat().st_size > 0
    words = ("--route", "gated", "--static", "0.5", "--format", "torch", "--output", tmp_path / "static.pt2")
    said = " ".join(done("export", gated_run, *words).split())
    assert "kNN-1 %" in said
    assert "over 32 held-out images, the same for all networks: float32, one thread" in said


def test_wrong_calls_of_export(gated_run: Path, ungated_run: Path, tmp_path: Path) -> None:
    assert "give --route gated" in refused("export", gated_run, "--static", "0.5")
    assert "give --static SHARE" in refused("export", gated_run, "--multiple", "16")
    assert "--output is empty" in refused("export", gated_run, "--output", "")
    assert "there is no folder" in refused("export", gated_run, "--output", tmp_path / "no" / "x.onnx")
    assert "no gates" in refused("export", gated_run, "--route", "gated", "--format", "torchvision")
    assert "width 64" in refused("export", gated_run, "--format", "torchvision")
    assert "no gated route" in refused("export", ungated_run, "--route", "gated", "--format", "torch")
    assert "is not a run folder" in refused("export", tmp_path)


def test_help_lists_the_formats_that_there_are() -> None:
    assert dict(FORMATS) == export_command.FORMATS


@pytest.mark.long
@pytest.mark.usefixtures("timed_briefly")
@pytest.mark.parametrize("more", [(), ("--route", "gated", "--static", "0.5")])
def test_an_int8_file_is_written_run_and_compared(more: tuple[str, ...], gated_run: Path, tmp_path: Path) -> None:
    said = parsed("export", gated_run, "--precision", "int8", *more, "--output", tmp_path / "net.onnx")
    assert 0.9 < said["cosine_with_float32"]["least"] <= said["cosine_with_float32"]["mean"] <= 1.0001
    assert json.loads(said["description"]["ssl_dc.precision"]) == "int8"
    session = session_of((tmp_path / "net.onnx").read_bytes(), 1)
    assert session.get_modelmeta().custom_metadata_map == said["description"]


def test_there_is_no_int8_file_of_a_network_with_masks_or_in_other_formats(gated_run: Path) -> None:
    for words in (("--route", "gated"), ("--format", "torch"), ("--format", "torchvision")):
        assert "--precision int8 is for --format onnx" in refused("export", gated_run, "--precision", "int8", *words)


def test_an_output_that_cannot_be_a_file_is_refused_before_anything_is_computed(
    finished_run: ssl_dc.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ssl_dc.run_folder.RunFolder.load_model", None)
    static = ("--route", "gated", "--static", "0.1")
    assert "this is a folder; name a file" in refused("export", finished_run.folder, *static, "-o", tmp_path)
    assert "must be one of" in refused("evaluate", finished_run.folder, "--protocol", "gates", "-o", tmp_path / "x.gif")
    assert "must be one of" in refused("embed", finished_run.folder, "-o", tmp_path / "x.gif")
