"""Every way in which a training ends early, with 0, 1 and 2 workers, in one process and in two: all must end, and say why.

    python benchmarks/early_ends.py [--only TEXT] [--table FILE] [--record FILE]

Writes a Markdown table, a row for each way and a cell for each number of workers and processes. A cell fails if anything
is still there after 20 seconds, if the exit status is another one, or if a process of the package shows a traceback. The
seconds are fair to a busy machine: while a thread of the cell wants to run, only its processor time counts. Needs Linux,
and root for the full disk.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

SECONDS = 20.0
"""Fair seconds after the event, or after the message that tells it, in which a process may still be there."""
START_SECONDS = 240.0
"""How long a start may take on a busy machine."""
TAG = "SSL_DC_EARLY_ENDS"
"""Variable by which the processes of a cell are known, whoever started them."""

PLUGIN = '''
import os
import time
import torch
import ssl_dc

class MeanOptions(ssl_dc.PartOptions):
    name: str = "mean"

class Mean(ssl_dc.Objective):
    """The mean distance of two embeddings; in its third step it fails as the environment says."""

    weights = {"distance": 1.0}

    def __init__(self, options, feature_dim):
        super().__init__()
        self.heads = torch.nn.Linear(feature_dim, 8)
        self.calls = 0

    def forward(self, views):
        self.calls += 1
        one, two = (self.heads(view) for view in views.features)
        distance = (one - two).square().mean()
        fails = os.environ.get("FAIL") if self.calls == 3 else None
        if fails == "raise":
            raise RuntimeError("an objective that fails")
        if fails == "sleep":
            time.sleep(600)
        if fails == "nan" and os.environ.get("RANK", "0") == os.environ.get("FAILING_RANK", "0"):
            distance = distance * float("nan")
        return ssl_dc.ObjectiveOutput({"distance": distance}, [one, two])

class ViewOptions(ssl_dc.PartOptions):
    name: str = "failing"

class FailingViews(ssl_dc.Views):
    def __init__(self, options, image_size, mean, std):
        self.size, self.drawn = image_size, 0

    def view(self, image, number):
        self.drawn += 1
        if self.drawn > 20:
            raise RuntimeError("a view that fails")
        return torch.rand(3, self.size, self.size)

@ssl_dc.hookimpl
def ssl_dc_objectives():
    return [ssl_dc.Part(name="mean", target=f"{__name__}:Mean", options=f"{__name__}:MeanOptions", summary="A mean.")]

@ssl_dc.hookimpl
def ssl_dc_views():
    return [
        ssl_dc.Part(
            name="failing", target=f"{__name__}:FailingViews", options=f"{__name__}:ViewOptions", summary="Fails soon."
        )
    ]
'''

RANK = """
import os
import sys
from ssl_dc.cli import main
try:
    main(prog_name="ssl-dc")
except SystemExit as ended:
    with open(f"status-{os.environ['RANK']}", "w") as file:
        file.write(str(ended.code or 0))
    raise
"""

OPTIONS = (
    "--plugin ends.py --objective.name mean --backbone.width 4 --data.image_size 8 --data.limit 64 --data.test_limit 40"
    " --training.batch_size 16 --training.log_every 1 --output run"
)


@dataclass(frozen=True)
class Way:
    """One way in which a training ends early.

    Attributes:
        name: What happens.
        status: Exit status of the process, or of each process of the launch that can still tell it.
        launched: Another status that a process of a launch may have, because the launcher sends it another signal.
        options: Of ``ssl-dc train``.
        environment: Of all processes.
        act: What is done to the running training, given the cell's processes; None where it ends by itself.
        at_start: Whether that is done before the first step.
        said: What a process that can still speak says.
        only: With which numbers of workers, and of processes, this can happen.
    """

    name: str
    status: int
    launched: int | None = None
    options: str = "--training.epochs 100000"
    environment: tuple[tuple[str, str], ...] = ()
    act: Callable[[Cell], None] | None = None
    at_start: bool = False
    said: str = ""
    workers: tuple[int, ...] = (0, 1, 2)
    processes: tuple[int, ...] = (1, 2)


class Cell:
    """One training that ends early.

    Args:
        way: How.
        workers: Processes that prepare images, for each process that trains.
        processes: Processes that train.
        place: An empty folder.
    """

    def __init__(self, way: Way, workers: int, processes: int, place: Path) -> None:
        self.way, self.workers, self.processes, self.place = way, workers, processes, place
        self.tag = uuid.uuid4().hex
        (place / "ends.py").write_text(PLUGIN)
        (place / "rank.py").write_text(RANK)
        words = [*OPTIONS.split(), *way.options.split(), "--training.workers", str(workers)]
        launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
        launcher += ["--redirects", "3", "--log-dir", "logs", "rank.py"]
        program = ["-m", "ssl_dc"] if processes == 1 else launcher
        self.said = place / "said"
        with self.said.open("w") as said:
            self.process = subprocess.Popen(
                [sys.executable, *program, "train", *words],
                cwd=place,
                stdout=subprocess.DEVNULL,
                stderr=said,
                start_new_session=True,
                env={**os.environ, **dict(way.environment), "OMP_NUM_THREADS": "1", TAG: self.tag},
            )

    def alive(self) -> dict[int, str]:
        """Process ids of the cell that are not dead, with their short names."""
        found = {}
        for folder in Path("/proc").iterdir():
            if not folder.name.isdigit():
                continue
            with suppress(OSError):
                if f"{TAG}={self.tag}".encode() in (folder / "environ").read_bytes().split(b"\0"):
                    found[int(folder.name)] = (folder / "comm").read_text().strip()
        return found

    def worked(self) -> tuple[dict[Path, float], bool]:
        """Processor seconds that each thread of the cell has used, and whether one of them wants to run."""
        used, busy = {}, False
        for pid in self.alive():
            with suppress(OSError):
                for thread in Path(f"/proc/{pid}/task").iterdir():
                    used[thread] = int((thread / "schedstat").read_text().split()[0]) / 1e9
                    busy = busy or (thread / "stat").read_text().rpartition(")")[2].split()[0] == "R"
        return used, busy

    def fair_seconds(self, reached: Callable[[], bool], limit: float) -> float:
        """Seconds until something is reached, or up to a limit, as they would be with a processor for each thread.

        While a thread wants to run, the clock shows the processor time of the busiest one; while all sleep, it runs on.
        """
        passed, now, (used, _) = 0.0, time.monotonic(), self.worked()
        while not reached() and passed < limit:
            time.sleep(0.05)
            before, since = used, now
            (used, busy), now = self.worked(), time.monotonic()
            most = max((seconds - before.get(thread, 0.0) for thread, seconds in used.items()), default=0.0)
            passed += most if busy else now - since
        return passed

    def ranks(self) -> list[int]:
        """Process ids of the processes that train, in the order of their start."""
        if self.processes == 1:
            return [self.process.pid]
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return sorted(int(child) for child in children)

    def image_workers(self) -> list[int]:
        """Process ids of the processes that prepare images."""
        return [pid for pid, name in self.alive().items() if name == "pt_data_worker"]

    def logs(self) -> list[str]:
        """What each process that trains has said on standard error."""
        if self.processes == 1:
            return [self.said.read_text()]
        return [path.read_text() for path in sorted((self.place / "logs").glob("*/attempt_0/*/stderr.log"))]

    def wait(self, reached: Callable[[], bool], seconds: float) -> bool:
        """Whether something was reached in that time."""
        ends = time.monotonic() + seconds
        while not reached():
            if time.monotonic() > ends:
                return False
            time.sleep(0.05)
        return True

    def running(self) -> bool:
        """Whether two steps have been taken and all workers are there."""
        steps = self.place / "run" / "metrics.jsonl"
        taken = steps.exists() and steps.read_text().count("\n") > 1
        return taken and len(self.image_workers()) == self.workers * self.processes

    def importing(self) -> bool:
        """Whether all that train have read the command line, and now import torch."""
        with suppress(OSError):
            ranks = self.ranks()
            maps = [Path(f"/proc/{rank}/maps").read_text() for rank in ranks]
            return len(ranks) == self.processes and all("libtorch_cpu" in text for text in maps)
        return False

    def told(self) -> bool:
        """Whether a process has said why it ends, or all have ended."""
        return any(self.way.said in log for log in self.logs()) or self.process.poll() is not None

    def result(self) -> tuple[bool, str]:
        """Whether the cell is as it should be, and what it was."""
        if self.way.act is None:
            began = self.wait(self.told, START_SECONDS)
        elif self.way.at_start:
            began = self.wait(self.importing, START_SECONDS)
        else:
            began = self.wait(lambda: self.running() or self.process.poll() is not None, START_SECONDS)
        if not began or (self.way.act and self.process.poll() is not None):
            return False, f"did not start: {''.join(self.logs())[-300:]}"
        if self.way.act is not None:
            self.way.act(self)
        seconds = self.fair_seconds(lambda: self.process.poll() is not None and not self.alive(), SECONDS)
        if seconds >= SECONDS:
            left = ", ".join(f"{name} ({pid})" for pid, name in self.alive().items())
            return False, f"still there after {SECONDS:.0f} s: {left}"
        return self._judged(seconds)

    def _judged(self, seconds: float) -> tuple[bool, str]:
        status = self.process.returncode
        if self.processes == 1:
            right = status == self.way.status
            shown = str(status)
        else:
            told = [path.read_text() for path in sorted(self.place.glob("status-*"))]
            right = status != 0 and all(int(each) in (self.way.status, self.way.launched) for each in told)
            right = right and (bool(told) or self.way.at_start or not self.way.said)
            shown = " ".join(told) or f"launcher {status}"
        logs = self.logs()
        if any("Traceback" in log for log in logs):
            return False, f"{shown}, traceback: {''.join(logs)[-600:]}"
        if not any(self.way.said in log for log in logs):
            return False, f"{shown}, not told: {''.join(logs)[-600:]}"
        return right, f"{shown}, {seconds:.1f} s"

    def end(self) -> None:
        """Kill what is left."""
        for pid in self.alive():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()


def to_all(number: signal.Signals) -> Callable[[Cell], None]:
    """A signal to the whole process group, as a terminal or a scheduler sends it."""
    return lambda cell: os.killpg(cell.process.pid, number)


def twice(number: signal.Signals) -> Callable[[Cell], None]:
    """A signal to the whole process group, and again once it is no echo of the first."""

    def act(cell: Cell) -> None:
        time.sleep(1.0)  # so that all processes are in the next step
        os.killpg(cell.process.pid, number)
        time.sleep(2.0)
        os.killpg(cell.process.pid, number)

    return act


def to_the_command(number: signal.Signals) -> Callable[[Cell], None]:
    """A signal to the process that was called: the training, or the launcher."""
    return lambda cell: os.kill(cell.process.pid, number)


def kill_rank(rank: int) -> Callable[[Cell], None]:
    """Kill one of the processes that train."""
    return lambda cell: os.kill(cell.ranks()[rank], signal.SIGKILL)


def kill_image_worker(cell: Cell) -> None:
    """Kill a process that prepares images."""
    os.kill(cell.image_workers()[0], signal.SIGKILL)


WAYS = [
    Way(
        "an image that cannot be read",
        1,
        options="--data folder --data-root pictures --training.epochs 3",
        said="cannot be read",
    ),
    Way("an objective that raises", 1, environment=(("FAIL", "raise"),), said="RuntimeError: an objective that fails"),
    Way(
        "a view that raises", 1, options="--views.name failing --training.epochs 3", said="RuntimeError: a view that fails"
    ),
    Way(
        "the disk is full",
        1,
        options="--training.epochs 100000 --training.checkpoint_every 1 --training.keep_checkpoints 1000",
        said="No space left on device",
    ),
    Way("a loss that is not finite", 1, environment=(("FAIL", "nan"),), said="step 3: the loss is nan"),
    Way(
        "a loss that is not finite, in the second process only",
        1,
        environment=(("FAIL", "nan"), ("FAILING_RANK", "1")),
        said="step 3: the loss is nan",
        processes=(2,),
    ),
    Way("Ctrl-C", 130, act=to_all(signal.SIGINT), said="stopped by SIGINT after step"),
    Way(
        "Ctrl-C again, in a step without end",
        130,
        launched=143,  # the launcher makes SIGTERM of the second Ctrl-C
        environment=(("FAIL", "sleep"),),
        act=twice(signal.SIGINT),
        said="To continue a training",
    ),
    Way("SIGTERM to all processes", 143, act=to_all(signal.SIGTERM), said="stopped by SIGTERM after step"),
    Way("SIGTERM to the command alone", 143, act=to_the_command(signal.SIGTERM), said="stopped by SIGTERM after step"),
    Way("SIGTERM before the first step", 143, act=to_all(signal.SIGTERM), at_start=True, said="stopped by SIGTERM"),
    Way("a worker is killed (-9)", 1, act=kill_image_worker, said="ssl-dc: a process that prepares images", workers=(1, 2)),
    Way("the training process is killed (-9)", -9, act=kill_rank(0), processes=(1,)),
    Way("the first of two processes is killed (-9)", 1, act=kill_rank(0), said="another process", processes=(2,)),
    Way("the second of two processes is killed (-9)", 1, act=kill_rank(1), said="another process", processes=(2,)),
    Way(
        "the launcher is killed (-9)",
        143,
        act=to_the_command(signal.SIGKILL),
        said="stopped by SIGTERM after step",
        processes=(2,),
    ),
]


def pictures(place: Path) -> None:
    """A folder of 64 pictures, one of them broken."""
    draw = np.random.default_rng(0)
    for split, count in (("train", 32), ("val", 8)):
        for name in ("cat", "dog"):
            folder = place / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                Image.fromarray(draw.integers(0, 255, (12, 12, 3)).astype(np.uint8)).save(folder / f"{number}.png")
    (place / "train" / "cat" / "3.png").write_bytes(b"broken")


def can_mount() -> bool:
    """Whether a small disk can be mounted here, which needs root."""
    with tempfile.TemporaryDirectory() as place:
        mounted = subprocess.run(["mount", "-t", "tmpfs", "tmpfs", place], capture_output=True, check=False)  # noqa: S607
        if mounted.returncode == 0:
            subprocess.run(["umount", place], check=True)  # noqa: S607
    return mounted.returncode == 0


def tried(way: Way, workers: int, processes: int) -> tuple[bool, str]:
    """Run one cell, in a folder of its own."""
    place = Path(tempfile.mkdtemp(prefix="early-ends-"))
    small = way.name == "the disk is full"
    if small:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(place)], check=True)  # noqa: S607
    if "pictures" in way.options:
        pictures(place / "pictures")
    cell = Cell(way, workers, processes, place)
    try:
        return cell.result()
    finally:
        cell.end()
        if small:
            subprocess.run(["umount", "--lazy", str(place)], check=True)  # noqa: S607
        shutil.rmtree(place, ignore_errors=True)


def main() -> int:
    """Try all cells; the exit status is 1 if one failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="ways whose name holds this text")
    parser.add_argument("--table", type=Path, help="where to write the table")
    parser.add_argument(
        "--record", type=Path, help="cells that were right before and are not tried again; right ones are added"
    )
    asked = parser.parse_args()
    known = (
        dict(json.loads(line) for line in asked.record.read_text().splitlines())
        if asked.record and asked.record.exists()
        else {}
    )
    columns = [(processes, workers) for processes in (1, 2) for workers in (0, 1, 2)]
    rows, good, failed = [], 0, 0
    for way in WAYS:
        if asked.only not in way.name:
            continue
        cells = []
        for processes, workers in columns:
            if processes not in way.processes or workers not in way.workers:
                cells.append("")
                continue
            name = f"{way.name}, {processes} processes, {workers} workers"
            right, shown = (True, known[name]) if name in known else tried(way, workers, processes)
            print(f"{name}: {'' if right else 'WRONG '}{shown}", flush=True)
            if asked.record and right and name not in known:
                with asked.record.open("a") as record:
                    record.write(json.dumps([name, shown]) + "\n")
            good, failed = good + right, failed + (not right)
            cells.append(shown if right else "**WRONG**")
        rows.append([way.name, *cells])
    head = [
        "",
        *(
            f"{processes} process{'es' * (processes > 1)}, {workers} worker{'s' * (workers != 1)}"
            for processes, workers in columns
        ),
    ]
    table = "\n".join(f"| {' | '.join(row)} |" for row in [head, ["---"] * len(head), *rows])
    print(f"{good} of {good + failed} cells as they should be")
    if asked.table:
        asked.table.write_text(f"{table}\n")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
