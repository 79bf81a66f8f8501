"""A folder such as the readers of the pages have: pictures, runs, and files with the names that the pages call them by."""

from __future__ import annotations

import io
import shutil
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import ssl_dc
from helpers.settings import SHORT
from helpers.shown_code import REPOSITORY
from helpers.small_trainings import small_for

RUNS = ("RUN", "ONE", "TWO", "OTHER", "one")
"""Runs that pages name, and do not train first."""

OBJECTIVE = """
import ssl_dc, torch
from pydantic import Field

SSL_DC_INTERFACE = "2.0"


class SpreadOptions(ssl_dc.PartOptions):
    name: str = "spread"
    width: int = Field(8, ge=2, description="Width of the embedding.")


class Spread(ssl_dc.Objective):
    weights = {"alignment": 1.0}

    def __init__(self, options, feature_dim):
        super().__init__()
        self.head = torch.nn.Linear(feature_dim, options.width)

    def forward(self, views):
        z1, z2 = (ssl_dc.gather_batch(self.head(features).float()) for features in views.features)
        return ssl_dc.ObjectiveOutput({"alignment": torch.nn.functional.mse_loss(z1, z2)}, [z1, z2])


@ssl_dc.hookimpl
def ssl_dc_objectives():
    where = __name__
    return [ssl_dc.Part(name="spread", target=f"{where}:Spread", options=f"{where}:SpreadOptions", summary="Alignment.")]
"""


def picture(number: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(number).integers(0, 256, (10, 12, 3), np.uint8))


def write_pictures(root: Path, *folders: str, count: int = 12) -> None:
    for folder in folders:
        (root / folder).mkdir(parents=True)
        for number in range(count):
            picture(number).save(root / folder / f"{number}.png")


def write_parquet(folder: Path, image: str = "image", label: str = "label") -> None:
    import pyarrow
    from pyarrow import parquet

    folder.mkdir(exist_ok=True)
    for split, count in (("train", 40), ("test", 20)):
        rows = []
        for number in range(count):
            stream = io.BytesIO()
            picture(number).save(stream, "PNG")
            rows.append({image: {"bytes": stream.getvalue(), "path": None}, label: number % 10})
        parquet.write_table(pyarrow.Table.from_pylist(rows), folder / f"{split}.parquet")


def write_tar(file: Path) -> None:
    file.parent.mkdir()
    with tarfile.open(file, "w") as tar:
        for number in range(40):
            stream = io.BytesIO()
            picture(number).save(stream, "JPEG")
            for ending, content in (("jpg", stream.getvalue()), ("cls", str(number % 2).encode())):
                member = tarfile.TarInfo(f"{number:04}.{ending}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))


@pytest.fixture(scope="session")
def readers_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder; tests take a copy."""
    pytest.importorskip("pyarrow")
    folder = tmp_path_factory.mktemp("reader")
    write_pictures(folder / "photos", "2023", "2024/summer")
    write_pictures(folder / "DIR", "2023", "2024/summer")
    write_parquet(folder / "DIR")
    write_parquet(folder / "cifar10")
    write_parquet(folder / "cifar100", image="img", label="fine_label")
    write_pictures(folder / "flowers", "train/daisy", "train/rose", "val/daisy", "val/rose", count=6)
    write_tar(folder / "shards" / "train-0000.tar")
    picture(0).save(folder / "a.jpg")
    (folder / "my_objective.py").write_text(OBJECTIVE)
    shutil.copytree(REPOSITORY / "configs", folder / "configs")
    run = ssl_dc.train({**SHORT, "backbone.width": 16}, output=folder / "runs" / RUNS[0])
    for name in RUNS[1:]:
        shutil.copytree(run.folder, folder / "runs" / name)
    return folder


@pytest.fixture
def reader(readers_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the folder, which is the working directory."""
    copy = Path(shutil.copytree(readers_folder, tmp_path / "reader"))
    monkeypatch.chdir(copy)
    return copy


@pytest.fixture
def small_trainings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trainings that programs start are small, and so is what is added to a run."""
    train, resume = ssl_dc.train, ssl_dc.resume

    def small(settings: Any = None, **others: Any) -> ssl_dc.Run:
        if settings is None or isinstance(settings, Mapping):
            settings = {**(settings or {}), **small_for(" ".join(settings or {}))}
        return train(settings, **others)

    def shorter(folder: str | Path, **others: Any) -> ssl_dc.Run:
        return resume(folder, **{key: 2 if key == "epochs" else value for key, value in others.items()})

    monkeypatch.setattr("ssl_dc.api.train", small)
    monkeypatch.setattr("ssl_dc.api.resume", shorter)
