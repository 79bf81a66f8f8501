"""Images a second of one process and of two, each with one thread, in turns.

    python benchmarks/scaling.py [--width 16] [--batch 128 ...] [--processes 2] [--rounds 5] [--json FILE]

Each process trains on its own share of random 32x32 images, a gated and a dense view of each. It draws its views itself.
The batch is that of one process, so two processes do twice the work of one. The time is that of the steps after the first
fifth. Of a launch of several processes the first one counts its exchanges, and tells the share of its time in them, which
it mostly waits. Those that DDP itself makes, for buffers and gradients, are not counted.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent


def main() -> None:
    """Time launches in turns, print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--batch", type=int, nargs="+", default=[128], help="images a step of one process; one or several")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--anywhere", action="store_true", help="let the processes run on any processor, not each on its own"
    )
    parser.add_argument("--json", type=Path)
    parser.add_argument("--trained", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.steps < 5:
        parser.error("--steps must be at least 5: the first fifth is not timed")
    if options.trained is not None:
        told = trained(options)
        if os.environ["RANK"] == "0":
            options.trained.write_text(json.dumps(told))
        return
    result = {}
    print(
        "| images a step and process | 1 process, images/s | ratios | exchanges a step | share of the time in them | GiB |"
    )
    print("| ---: | ---: | ---: | ---: | ---: | ---: |")
    for batch in options.batch:
        rounds = [[launched(count, batch, options) for count in (1, options.processes)] for _ in range(options.rounds)]
        result[batch] = summary(rounds)
        told = result[batch]
        ratios = f"**{told['ratio']:.2f}** ({', '.join(f'{each:.2f}' for each in told['ratios'])})"
        waited = f"{told['exchanges']:.0f} | {100 * told['share_in_exchanges']:.1f} %"
        print(f"| {batch} | {told['one']:,.1f} | {ratios} | {waited} | {told['gib_of_a_process']:.1f} |", flush=True)
        if options.json is not None:
            settings = {"width": options.width, "steps": options.steps, "processes": options.processes}
            options.json.write_text(
                json.dumps({**settings, "anywhere": options.anywhere, "batch": result}, indent=2) + "\n"
            )


def summary(rounds: Sequence[Sequence[Mapping[str, float]]]) -> dict[str, Any]:
    """Medians over rounds, each of one process and of several."""

    def median(number: int, key: str) -> float:
        return statistics.median(each[number][key] for each in rounds)

    ratios = [many["images_per_second"] / one["images_per_second"] for one, many in rounds]
    return {
        "one": median(0, "images_per_second"),
        "many": median(1, "images_per_second"),
        "ratios": ratios,
        "ratio": statistics.median(ratios),
        "exchanges": median(1, "exchanges"),
        "share_in_exchanges": median(1, "share_in_exchanges"),
        "gib_of_a_process": median(1, "gib_of_a_process"),
    }


def launched(processes: int, batch: int, options: argparse.Namespace) -> dict[str, float]:
    """What the first process of a launch with so many processes tells."""
    with tempfile.TemporaryDirectory() as folder:
        told = Path(folder) / "told"
        words = [f"--width={options.width}", f"--steps={options.steps}", f"--batch={batch}"]
        words += ["--anywhere"] * options.anywhere
        launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
        one_thread = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        subprocess.run([*launch, __file__, "--trained", str(told), *words], env=one_thread, check=True, cwd=ROOT)
        values: dict[str, float] = json.loads(told.read_text())
        return values


class Exchanges:
    """Counts the exchanges of this process, and how long it is in them."""

    def __init__(self) -> None:
        import torch.distributed as dist

        self.count, self.seconds = 0, 0.0
        for name in ("all_gather", "all_reduce"):
            setattr(dist, name, self._timed(getattr(dist, name)))

    def _timed(self, exchange: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*arguments: Any, **named: Any) -> Any:
            start = time.perf_counter()
            answer = exchange(*arguments, **named)
            self.seconds += time.perf_counter() - start
            self.count += 1
            return answer

        return timed


def trained(options: argparse.Namespace) -> dict[str, float]:
    """What this process tells of a training: nothing but the first one's is true, since the others tell no watchers."""
    import numpy as np
    import torch

    import ssl_dc
    from ssl_dc.config import resolve, uniform_layer
    from ssl_dc.data.base import ImageSet
    from ssl_dc.training import accelerator
    from ssl_dc.training.from_config import trainer_from_config

    if options.anywhere:
        accelerator.keep_to_own_processors = lambda: None
    exchanges = Exchanges()
    processes, (batch,) = int(os.environ["WORLD_SIZE"]), options.batch
    torch.set_num_threads(1)
    pixels = np.random.default_rng(0).integers(0, 256, (batch * processes * options.steps, 32, 32, 3), np.uint8)

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
        """Notes the time, and the exchanges so far, after a fifth of the steps and after the last."""

        began = ended = (0.0, 0, 0.0)

        def on_step_end(self, step: int) -> None:
            """Note them."""
            if step == options.steps // 5:
                self.began = (time.perf_counter(), exchanges.count, exchanges.seconds)
            if step == options.steps:
                self.ended = (time.perf_counter(), exchanges.count, exchanges.seconds)

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
        "training.batch_size": batch * processes,
        "training.workers": 0,
        "training.log_every": 50,
    }
    clock = Clock()
    trainer = trainer_from_config(resolve([uniform_layer(settings, "benchmark")]).config, Pictures())
    trainer.fit(watchers=[clock])
    steps = options.steps - options.steps // 5
    seconds, count, waited = (late - early for late, early in zip(clock.ended, clock.began, strict=True))
    return {
        "images_per_second": processes * batch * steps / seconds if seconds else 0.0,
        "exchanges": count / steps,
        "share_in_exchanges": waited / seconds if seconds else 0.0,
        "gib_of_a_process": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
    }


if __name__ == "__main__":
    main()
