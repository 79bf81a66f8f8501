"""A run folder or a published model from anybody: read, checked, never executed."""

from __future__ import annotations

import io
import json
import os
import pickle
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import ssl_dc
from helpers.command_line import HANGS, call
from ssl_dc import ConfigError, RunError, SslDcError
from ssl_dc.reproduction.comparison import HEADINGS, Comparison, Row
from ssl_dc.tensor_files import CHECKSUM, read_tensors, write_tensors


def flip(path: Path, position: int, bit: int = 0) -> None:
    content = bytearray(path.read_bytes())
    content[position] ^= 1 << bit
    path.write_bytes(bytes(content))


# checksums


@pytest.mark.parametrize("share", [0.4, 0.7, 0.999])
def test_a_flipped_bit_in_the_weights_is_found(copied_run: Path, share: float) -> None:
    path = copied_run / "model.safetensors"
    flip(path, int(share * path.stat().st_size))
    with pytest.raises(RunError, match=r"model\.safetensors is damaged"):
        ssl_dc.load(copied_run)


def test_weights_that_another_program_wrote_need_no_checksum(copied_run: Path) -> None:
    path = copied_run / "model.safetensors"
    before = ssl_dc.load(copied_run).encoder.state_dict()
    save_file(load_file(path), path)
    after = ssl_dc.load(copied_run).encoder.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_the_checksum_sees_names_shapes_dtypes_and_values(tmp_path: Path) -> None:
    path = tmp_path / "it.safetensors"

    def checksum(tensors: dict[str, torch.Tensor]) -> str:
        write_tensors(path, tensors)
        assert set(read_tensors(path)) == set(tensors)
        content = path.read_bytes()
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        return str(header["__metadata__"][CHECKSUM])

    zeros = torch.zeros(2, 3)
    variants = [
        {"a": zeros},
        {"b": zeros},
        {"a": zeros.view(3, 2)},
        {"a": zeros.int()},
        {"a": zeros + 1},
        {"a": zeros.bfloat16()},
        {"a": zeros, "b": zeros},
        {"a": torch.tensor(0.0)},
        {},
    ]
    assert len({checksum(variant) for variant in variants}) == len(variants)
    assert checksum({"a": zeros, "b": zeros + 1}) == checksum({"b": zeros + 1, "a": zeros})


# nothing is executed


def canary(touched: Path) -> Any:
    class Evil:
        def __reduce__(self) -> tuple[Any, tuple[str]]:
            return os.mkdir, (str(touched),)

    return Evil()


def plain_pickle(touched: Path) -> bytes:
    return pickle.dumps(canary(touched))


def torch_file(touched: Path) -> bytes:
    stream = io.BytesIO()
    torch.save(canary(touched), stream)
    return stream.getvalue()


def numpy_archive(touched: Path) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("a.npy", b"\x93NUMPY\x01\x00v\x00{'descr': '|O', 'fortran_order': False, 'shape': ()}\n" + b"x")
        archive.writestr("data.pkl", pickle.dumps(canary(touched)))
    return stream.getvalue()


def python_yaml(touched: Path) -> bytes:
    return f"!!python/object/apply:os.mkdir ['{touched}']\n".encode()


FILES = [
    "config.json",
    "model.safetensors",
    "metrics.jsonl",
    "environment.json",
    "history.jsonl",
    "data.json",
    "result.json",
    "checkpoints/step-00000002/learner.safetensors",
    "checkpoints/step-00000002/optimizer.safetensors",
    "checkpoints/step-00000002/progress.json",
]


def test_every_file_of_a_run_is_tried(finished_run: ssl_dc.Run, dense_run: Path) -> None:
    for folder in (finished_run.folder, dense_run):
        assert {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()} == set(FILES)


@pytest.mark.long
@pytest.mark.parametrize("name", FILES)
def test_a_malicious_file_in_the_place_of_any_is_never_executed(dense_run: Path, tmp_path: Path, name: str) -> None:
    touched = tmp_path / "touched"
    folder = Path(shutil.copytree(dense_run, tmp_path / "run"))
    for content in (plain_pickle, torch_file, numpy_archive, python_yaml):
        (folder / name).write_bytes(content(touched))
        assert call("evaluate", folder).exit_code in (0, 1, 2)
        assert not touched.exists()
        with suppress(SslDcError):  # the command would read the same, and plan the rest of the training besides
            ssl_dc.resume(folder)
        assert not touched.exists()


@pytest.mark.parametrize("content", [plain_pickle, torch_file])
def test_the_canary_sings_where_a_pickle_is_loaded(tmp_path: Path, content: Callable[[Path], bytes]) -> None:
    touched = tmp_path / "touched"
    stream = io.BytesIO(content(touched))
    torch.load(stream, weights_only=False) if content is torch_file else pickle.load(stream)
    assert touched.exists()


# what a folder may ask for


@pytest.mark.parametrize("name", [*FILES, "checkpoints", "checkpoints/step-00000002"])
def test_a_link_that_leads_out_of_the_folder_is_refused(copied_run: Path, tmp_path: Path, name: str) -> None:
    outside = tmp_path / "outside"
    (copied_run / name).rename(outside)
    (copied_run / name).symlink_to(outside)
    for verb in (ssl_dc.load, ssl_dc.resume):
        with pytest.raises(ConfigError, match="leads out of the folder"):
            verb(copied_run)
    assert outside.exists()


def test_a_link_within_the_folder_is_followed(copied_run: Path) -> None:
    (copied_run / "model.safetensors").rename(copied_run / "weights.safetensors")
    (copied_run / "model.safetensors").symlink_to("weights.safetensors")
    ssl_dc.load(copied_run)


def test_a_resume_point_names_no_files_of_its_own(copied_run: Path) -> None:
    progress = copied_run / "checkpoints" / "step-00000002" / "progress.json"
    record = json.loads(progress.read_text())
    record["sha256"] = {"../../model": record["sha256"]["learner"]}
    progress.write_text(json.dumps(record))
    assert "no whole resume point" in call("train", "--resume", copied_run).stderr, "what is trained is not begun anew"
    (copied_run / "model.safetensors").unlink()
    result = call("train", "--resume", copied_run)
    assert result.exit_code == 0
    assert "resume point left out" in result.stderr
    assert "training begins anew" in result.stderr


def test_a_config_cannot_ask_for_more_memory_than_its_weights_take(copied_run: Path) -> None:
    config = json.loads((copied_run / "config.json").read_text())
    config["backbone"]["width"] = 4096
    (copied_run / "config.json").write_text(json.dumps(config))
    with pytest.raises(RunError, match=r"both\.conv1\.weight is \(4, 3, 3, 3\) float32, but the network's is \(4096"):
        ssl_dc.load(copied_run)


def test_names_of_strange_tensors_are_shown_short_and_printable(copied_run: Path) -> None:
    path = copied_run / "model.safetensors"
    save_file({**load_file(path), "\x1b[2J" + "x" * 100_000: torch.zeros(1)}, path)
    with pytest.raises(RunError) as caught:
        ssl_dc.load(copied_run)
    assert "\x1b" not in str(caught.value)
    assert len(str(caught.value)) < 600


# what is shown


def test_tables_escape_what_they_show() -> None:
    evil = "<script>alert('|')</script>"
    row = Row(**dict.fromkeys(HEADINGS, evil))
    for text in (Comparison(evil, evil, [row]).page, Comparison("title", "call", [row]).text):
        assert "<script" not in text
    cells = Comparison("title", "call", [row]).text.splitlines()[-1]
    assert cells.replace("\\|", "").count("|") == len(HEADINGS) + 1


# what the machine cannot give


@pytest.mark.long
@pytest.mark.parametrize(
    "words", [["config", "show"], ["cost", "--width", "8"], ["plugins", "list"], ["--help"]], ids=" ".join
)
def test_a_full_standard_output_is_one_message(words: list[str]) -> None:
    with open("/dev/full", "w") as full:
        said = subprocess.run(
            [sys.executable, "-m", "ssl_dc", *words], stdout=full, stderr=subprocess.PIPE, text=True, timeout=HANGS
        )
    assert said.returncode == 1
    assert said.stderr == "ssl-dc: No space left on device\n"


def test_a_lack_of_memory_is_one_message(monkeypatch: pytest.MonkeyPatch) -> None:
    def greedy(*_: Any) -> None:
        torch.empty(2**60)

    monkeypatch.setattr("ssl_dc.evaluation.cost.cost_of_network", greedy)
    result = call("cost", "--width", "8")
    assert result.exit_code == 1
    assert result.stderr.startswith("ssl-dc: there is not enough memory for this: ")
    assert result.stderr.count("\n") == 1


def test_the_same_tensors_make_the_same_file(tmp_path: Path) -> None:
    """The library of safetensors writes several metadata in another order each time."""
    tensors = {"weight": torch.arange(6.0).view(2, 3), "bias": torch.ones(3, dtype=torch.bfloat16)}
    metadata = {f"key {number} é": str(number) for number in range(8)}
    for number in range(4):
        write_tensors(tmp_path / str(number), tensors, metadata)
    assert len({(tmp_path / str(number)).read_bytes() for number in range(4)}) == 1
    with safe_open(tmp_path / "0", "pt") as file:
        assert {key: value for key, value in file.metadata().items() if key != CHECKSUM} == {**metadata, "format": "pt"}
        assert all(torch.equal(file.get_tensor(name), value) for name, value in tensors.items())
