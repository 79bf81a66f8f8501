"""Images a second of one process and of two, each with one thread, in turns.

    python benchmarks/scaling.py [--width 16] [--batch 128] [--processes 2] [--rounds 5] [--json FILE]

Each process trains on its own share of random 32x32 images, a gated and a dense view of each. It draws its views itself.
The batch is that of one process, so two processes do twice the work of one. The time is that of the steps after the first
fifth.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent


def main() -> None:
    """Time launches in turns, print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--batch", type=int, default=128, help="images a step of one process")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--trained", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.steps < 5:
        parser.error("--steps must be at least 5: the first fifth is not timed")
    if options.trained is not None:
        rate = images_per_second(options)
        if os.environ["RANK"] == "0":
            options.trained.write_text(str(rate))
        return
    rounds = [[launched(count, options) for count in (1, options.processes)] for _ in range(options.rounds)]
    one, many = (statistics.median(each) for each in zip(*rounds, strict=True))
    ratios = [each[1] / each[0] for each in rounds]
    result = {
        "one": one,
        "many": many,
        "processes": options.processes,
        "ratios": ratios,
        "ratio": statistics.median(ratios),
    }
    if options.json is not None:
        options.json.write_text(json.dumps(result, indent=2) + "\n")
    print(f"| processes | images/s |\n| ---: | ---: |\n| 1 | {one:,.0f} |\n| {options.processes} | {many:,.0f} |\n")
    print(f"{result['ratio']:.2f} times as fast (rounds: {', '.join(f'{each:.2f}' for each in ratios)})")


def launched(processes: int, options: argparse.Namespace) -> float:
    """Images a second of a launch with so many processes, of all of them together."""
    with tempfile.TemporaryDirectory() as folder:
        told = Path(folder) / "told"
        words = [f"--{name}={getattr(options, name)}" for name in ("width", "batch", "steps")]
        launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
        one_thread = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        subprocess.run([*launch, __file__, "--trained", str(told), *words], env=one_thread, check=True, cwd=ROOT)
        return float(told.read_text())


def images_per_second(options: argparse.Namespace) -> float:
    """Of this launch, as its first process times it; 0 in the others, which tell their watchers nothing."""
    import numpy as np
    import torch

    import ssl_dc
    from ssl_dc.config import resolve, uniform_layer
    from ssl_dc.data.base import ImageSet
    from ssl_dc.training.from_config import trainer_from_config

    processes = int(os.environ["WORLD_SIZE"])
    torch.set_num_threads(1)
    pixels = np.random.default_rng(0).integers(0, 256, (options.batch * processes * options.steps, 32, 32, 3), np.uint8)

    class Pictures(ImageSet):
        """The random images."""

        labels = None

        def __init__(self) -> None:
            self.pixels = pixels

        def __len__(self) -> int:
            return len(pixels)

        def image(self, index: int) -> Any:
            """The image of that number."""
            from PIL import Image

            return Image.fromarray(pixels[index])

    class Clock(ssl_dc.Watcher):
        """Notes the time after a fifth of the steps, and after the last."""

        began = ended = 0.0

        def on_step_end(self, step: int) -> None:
            """Note the time."""
            if step == options.steps // 5:
                self.began = time.perf_counter()
            if step == options.steps:
                self.ended = time.perf_counter()

    settings: dict[str, Any] = {
        "data.name": "digits",
        "data.image_size": 32,
        "views.name": "batched",
        "backbone.width": options.width,
        "objective.expander_width": 512,
        "optimizer.lr": 1e-4,
        "gating.name": "dgnet",
        "budget.target": 0.3,
        "training.epochs": 1,
        "training.batch_size": options.batch * processes,
        "training.workers": 0,
        "training.log_every": 50,
    }
    clock = Clock()
    trainer = trainer_from_config(resolve([uniform_layer(settings, "benchmark")]).config, Pictures())
    trainer.fit(watchers=[clock])
    steps = options.steps - options.steps // 5
    seconds = clock.ended - clock.began
    return processes * options.batch * steps / seconds if seconds else 0.0


if __name__ == "__main__":
    main()
