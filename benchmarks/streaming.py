"""Trains for a pass over many small pictures that are read from disk as they are drawn; kills it (-9) halfway, and goes on.

    python benchmarks/streaming.py DIR [--records 1000000] [--kind webdataset] [--kind parquet]

Makes the pictures first (PNG, 32x32, some GB in DIR for a million), in shards. Each picture holds its number in its first
pixel, and the tiny network that trains notes the numbers of each batch. So it shows which records a training has seen, in
which order, through all that lies between the disk and the network. Prints a table in Markdown; writes JSON beside the
pictures.
"""

from __future__ import annotations

import argparse
import io
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
SIDE, SEEN = 32, 8
"""Side of the pictures, and of the views that the network sees."""
SHARED = 512
"""Different pictures, but for their numbers."""


def main() -> None:
    """Make, train, kill, go on, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--kind", action="append", choices=tuple(MAKERS))
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--shard", type=int, default=10_000, help="records of a shard")
    parser.add_argument("--batch", type=int, default=500)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--every", type=int, default=100, help="steps between two resume points")
    parser.add_argument("--trained", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.trained is not None:
        train(options.folder, options.kind[0], options.trained, options)
        return
    report = {kind: measured(kind, options) for kind in options.kind or MAKERS}
    (options.folder / "streaming.json").write_text(json.dumps(report, indent=2) + "\n")
    print_table(report)


def pictures(count: int, first: int = 0) -> Iterator[bytes]:
    """PNG files, each with its number in the first pixel."""
    draw = np.random.default_rng(0)
    small = draw.integers(0, 256, (SHARED, 4, 4, 3), np.uint8)
    bases = [np.asarray(Image.fromarray(each).resize((SIDE, SIDE), Image.Resampling.BICUBIC)) for each in small]
    rows = [np.concatenate([np.zeros((SIDE, 1), np.uint8), base.reshape(SIDE, -1)], 1) for base in bases]
    for number in range(first, first + count):
        lines = rows[number % SHARED]
        lines[0, 1:4] = number >> 16, number >> 8 & 255, number & 255
        yield PNG_HEAD + chunk(b"IDAT", zlib.compress(lines, 1)) + chunk(b"IEND", b"")


def chunk(kind: bytes, content: bytes) -> bytes:
    """A part of a PNG file."""
    return len(content).to_bytes(4, "big") + kind + content + zlib.crc32(kind + content).to_bytes(4, "big")


PNG_HEAD = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", SIDE.to_bytes(4, "big") * 2 + bytes([8, 2, 0, 0, 0]))
"""How each picture begins: 8 bits of red, green and blue."""


def make_tar(path: Path, files: Iterator[bytes], first: int) -> None:
    """A shard of WebDataset."""
    with tarfile.open(path.with_suffix(".tar"), "w") as tar:
        for number, content in enumerate(files, start=first):
            member = tarfile.TarInfo(f"{number:08}.png")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


def make_parquet(path: Path, files: Iterator[bytes], first: int) -> None:  # noqa: ARG001  # rows have no names
    """A shard in parquet, in row groups of 1,000."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [{"bytes": content, "path": None} for content in files]
    pq.write_table(pa.table({"image": rows}), path.with_suffix(".parquet"), row_group_size=1000)


MAKERS: dict[str, Callable[[Path, Iterator[bytes], int], None]] = {"webdataset": make_tar, "parquet": make_parquet}


def made(kind: str, options: argparse.Namespace) -> Path:
    """The folder of the pictures, which are made if they are not there."""
    folder: Path = options.folder / f"{kind}-{options.records}"
    if not folder.exists():
        partial = folder.with_suffix(".partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        for number, first in enumerate(range(0, options.records, options.shard)):
            count = min(options.shard, options.records - first)
            MAKERS[kind](partial / f"train-{number:05}", pictures(count, first), first)
        partial.rename(folder)
    return folder


def measured(kind: str, options: argparse.Namespace) -> dict[str, Any]:
    """What an uninterrupted training and a killed one did."""
    data = made(kind, options)
    runs = {name: options.folder / f"{kind}-{name}" for name in ("whole", "killed")}
    for folder in runs.values():
        shutil.rmtree(folder, ignore_errors=True)
    run(data, kind, runs["whole"], options)
    steps = options.records // options.batch
    run(data, kind, runs["killed"], options, kill_at=steps // 2 + options.every // 2)
    resumed = run(data, kind, runs["killed"], options)
    came = resumed["from"]
    size = sum(file.stat().st_size for file in data.iterdir())
    return {
        "records": options.records,
        "bytes": size,
        **json.loads((runs["whole"] / "told.json").read_text()),
        "first_step_seconds_after_kill": resumed["first_step_seconds"],
        "resumed_from_step": came,
        **compared(runs["whole"], runs["killed"], came, options.batch),
    }


def compared(whole: Path, killed: Path, came: int, batch: int) -> dict[str, Any]:
    """Whether a killed training that went on from a step has done what an uninterrupted one did."""
    seen, first, rest = (
        np.fromfile(file, np.int32).reshape(-1, batch)
        for file in (whole / "seen-0", killed / "seen-0", killed / f"seen-{came}")
    )
    return {
        "killed_after_step": len(first),
        "same_records": bool(np.array_equal(np.concatenate([first[:came], rest]), seen)),
        "records_seen": int(seen.size),
        "records_seen_twice": int(seen.size - len(np.unique(seen))),
        "same_metrics": (whole / "metrics.jsonl").read_bytes() == (killed / "metrics.jsonl").read_bytes(),
        "same_weights": (whole / "weights.safetensors").read_bytes() == (killed / "weights.safetensors").read_bytes(),
    }


def run(data: Path, kind: str, folder: Path, options: argparse.Namespace, kill_at: int | None = None) -> dict[str, Any]:
    """Train in a process of its own, to the end, or until it kills itself after a step; what it told."""
    folder.mkdir(exist_ok=True)
    words = [f"--{name}={getattr(options, name)}" for name in ("records", "batch", "workers", "every")]
    call = [sys.executable, __file__, str(data), "--kind", kind, "--trained", str(folder), *words]
    began = {"STARTED": str(time.time()), "OMP_NUM_THREADS": "1", "KILL_AT": str(kill_at or 0)}
    status = subprocess.run(call, env={**os.environ, **began}, check=False).returncode
    if status != (0 if kill_at is None else -signal.SIGKILL):
        raise SystemExit(f"the training ended with status {status}")
    return {} if kill_at is not None else dict(json.loads((folder / "told.json").read_text()))


def train(data: Path, kind: str, folder: Path, options: argparse.Namespace) -> None:
    """One pass over the pictures, from the newest resume point on."""
    import torch
    from torch import Tensor, nn

    import ssl_dc
    from ssl_dc.config import resolve, uniform_layer
    from ssl_dc.tensor_files import write_tensors
    from ssl_dc.training.metrics_file import MetricsFile

    class NumberedViews(ssl_dc.Views):
        """A crop that is flipped at random. The first pixel is that of the picture."""

        def view(self, image: Image.Image, number: int) -> Tensor:  # noqa: ARG002  # all views are drawn alike
            pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255
            drawn = torch.rand(3).tolist()
            top, left, flipped = int(drawn[0] * (SIDE - SEEN)), int(drawn[1] * (SIDE - SEEN)), drawn[2] < 0.5
            view = pixels[:, top : top + SEEN, left : left + SEEN].clone()
            view = view.flip(2) if flipped else view
            view[:, 0, 0] = pixels[:, 0, 0]
            return view

    class Tiny(ssl_dc.Backbone):
        """One convolution."""

        feature_dim = 16

        def __init__(self) -> None:
            super().__init__()
            self.convolution = nn.Conv2d(3, self.feature_dim, 3)

        def forward(self, images: Tensor, route: ssl_dc.Route) -> tuple[Tensor, dict[str, Tensor]]:  # noqa: ARG002
            return torch.relu(self.convolution(images)).mean(dim=(2, 3)), {}

    class OneNetwork(ssl_dc.Encoder):
        """It serves all routes."""

        def __init__(self) -> None:
            super().__init__()
            self.network = Tiny()

        def backbone(self, route: ssl_dc.Route) -> Tiny:  # noqa: ARG002
            return self.network

    class Watch(ssl_dc.Watcher):
        """Notes when the first step is done, and the memory that all processes have taken at most."""

        def __init__(self) -> None:
            self.told: dict[str, Any] = {}

        def on_start(self, step: int, total_steps: int) -> None:
            self.told["from"], self.total = step, total_steps

        def on_step_end(self, step: int) -> None:
            self.told.setdefault("first_step_seconds", round(time.time() - float(os.environ["STARTED"]), 2))
            if step in (max(1, self.total // 100), self.total):
                name = "peak_mib_at_1_percent" if step < self.total else "peak_mib_at_end"
                self.told[name] = {"training": peak(os.getpid())} | {
                    f"worker {number}": peak(child.pid)
                    for number, child in enumerate(multiprocessing.active_children())
                    if child.pid is not None
                }

    torch.set_num_threads(1)
    torch.manual_seed(0)
    stream = {"data.stream": True} if kind == "parquet" else {}
    settings = {"data.name": kind, "data.root": str(data), "data.hold_out": 0, "recipe": "paper", **stream}
    images = ssl_dc.open_splits(ssl_dc.build_data_set(resolve([uniform_layer(settings, "benchmark")]).config)).train
    training = ssl_dc.TrainingConfig(
        epochs=1, batch_size=options.batch, workers=options.workers, checkpoint_every=options.every, log_every=10
    )
    encoder, watch = OneNetwork(), Watch()
    trainer = ssl_dc.Trainer(
        encoder=encoder,
        objective=ssl_dc.VICReg(ssl_dc.VICRegOptions(expander_width=16), encoder.feature_dim),
        gating=ssl_dc.NoGating(ssl_dc.NoGatingOptions()),
        optimizer=lambda groups: torch.optim.AdamW([p for group in groups for p in group.parameters], lr=1e-3),
        images=images,
        views=NumberedViews(),
        image_size=SEEN,
        training=training,
        budget=ssl_dc.BudgetConfig(target=None),
        routes=(ssl_dc.Route.DENSE, ssl_dc.Route.DENSE),
    )
    kill_at = int(os.environ["KILL_AT"]) or None
    checkpoints = ssl_dc.CheckpointStore(folder / "checkpoints")
    with (folder / f"seen-{checkpoints.newest_step()}").open("wb", buffering=0) as seen:

        def note(_: nn.Module, given: tuple[Any, ...]) -> None:
            bytes_ = (given[0][0][:, :, 0, 0] * 255).round().to(torch.int32)
            if trainer.step == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)
            seen.write((bytes_[:, 0] << 16 | bytes_[:, 1] << 8 | bytes_[:, 2]).numpy().tobytes())

        trainer.learner.register_forward_pre_hook(note)
        trainer.fit(watchers=[MetricsFile(folder / "metrics.jsonl"), watch], checkpoints=checkpoints)
    write_tensors(folder / "weights.safetensors", encoder.state_dict())
    (folder / "told.json").write_text(json.dumps(watch.told))


def peak(process: int) -> int:
    """The most memory that a process has had resident, in MiB."""
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) // 1024
    return 0


def print_table(report: dict[str, dict[str, Any]]) -> None:
    """All figures, a column for each kind of data."""
    print("| | " + " | ".join(report) + " |")
    print("| --- |" + " ---: |" * len(report))
    for key in next(iter(report.values())):
        print(f"| {key.replace('_', ' ')} | " + " | ".join(shown(each[key]) for each in report.values()) + " |")


def shown(value: Any) -> str:
    """A figure as text."""
    if isinstance(value, dict):
        return ", ".join(f"{name} {number}" for name, number in value.items())
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


if __name__ == "__main__":
    main()
