"""Every objective at the small scale of CIFAR-10: one network for both routes, and the dense network alone.

    pip install plugins/ssl-dc-simclr plugins/ssl-dc-byol plugins/ssl-dc-objectives
    python benchmarks/objectives.py --data-root DIR --output DIR                       # 36 runs of some minutes each
    python benchmarks/objectives.py --data-root DIR --output DIR --objectives sigreg --systems dual --seeds 0
    python benchmarks/objectives.py --output DIR --show

DIR of --data-root holds train.parquet and test.parquet. Each run is configs/cifar10-small.yaml (10,000 images, 10 epochs,
budget 0.3) with another objective. It has a folder in the output, and is evaluated by kNN-1 and by a linear classifier on
each route.
The same call again makes only what is missing, and goes on with a run that was interrupted; several calls share the runs.
The table has the mean over seeds, and the standard deviation where there are several.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import ssl_dc
from ssl_dc.config import file_layer, uniform_layer
from ssl_dc.errors import SslDcError
from ssl_dc.jobs.tasks import TrainingTask, work

CONFIG = Path(__file__).parent.parent / "configs" / "cifar10-small.yaml"

OBJECTIVES: Mapping[str, Mapping[str, Any]] = {
    "vicreg": {"expander_width": 512},
    "barlow_twins": {"expander_width": 512},
    "simclr": {},
    "byol": {"hidden_width": 1024, "momentum": 0.99},
    "simsiam": {"width": 512, "hidden_width": 128},
    "sigreg": {"width": 64, "hidden_width": 512, "slices": 256},
    "visreg": {"width": 64, "hidden_width": 512, "slices": 256},
    "wmse": {"hidden_width": 512},
    "dino": {"width": 1024, "hidden_width": 512, "bottleneck_width": 128, "momentum": 0.99},
}
"""Options of each objective at this scale: narrower heads than the papers', and for a run this short, less momentum."""

SYSTEMS: Mapping[str, Mapping[str, Any]] = {
    "dual": {"routes": ["gated", "dense"]},
    "dense": {"routes": ["dense", "dense"], "gating.name": "none", "budget.target": None},
}
"""One network for both routes, and the dense network alone."""

LINEAR = "linear.json"
"""The file in a run's folder with its linear evaluation."""


def tasks_of(arguments: argparse.Namespace) -> list[TrainingTask]:
    """The runs that are asked for, seed by seed, so that a table of one seed is whole early."""
    of_call = {
        "data.root": str(arguments.data_root),
        "data.limit": arguments.limit,
        "data.test_limit": arguments.test_limit,
        "training.epochs": arguments.epochs,
        "training.workers": arguments.workers,
    }
    tasks = []
    for seed in arguments.seeds:
        for objective in arguments.objectives:
            options = {f"objective.{option}": value for option, value in OBJECTIVES[objective].items()}
            for system in arguments.systems:
                said = {"objective.name": objective, **options, **SYSTEMS[system], **of_call, "seed": seed}
                name = f"{objective}-{system}-seed{seed}"
                layers = (file_layer(CONFIG), uniform_layer(said, "benchmarks/objectives.py"))
                tasks.append(TrainingTask(name, layers, arguments.output / name))
    return tasks


def evaluate(folder: Path) -> None:
    """Write the linear evaluation of a finished run into its folder, unless it is there."""
    if (folder / "result.json").exists() and not (folder / LINEAR).exists():
        report = ssl_dc.evaluate(folder, "linear").as_json()
        (folder / LINEAR).write_text(json.dumps(report, indent=1) + "\n")


def row_of(folder: Path) -> dict[str, float]:
    """What a run reaches and pays: accuracies in percent, cost as a share of the dense cost, rank of the embedding."""
    result, linear = (json.loads((folder / file).read_text()) for file in ("result.json", LINEAR))
    row = {"rank": json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])["effective_rank"]}
    for route, reached in result["routes"].items():
        row |= {f"{route} kNN-1": reached["knn1"], f"{route} linear": linear["routes"][route]["top1"]}
        row |= {"untrained": reached["knn1_untrained"]} if route == "dense" else {"paid": reached["ratio"]}
    return row


COLUMNS = ("dense kNN-1", "dense linear", "gated kNN-1", "gated linear", "paid", "untrained", "rank")


def show(output: Path) -> None:
    """Print the finished runs of a folder as a table."""
    print(f"| objective | system | seeds | {' | '.join(COLUMNS)} |\n|{' --- |' * (3 + len(COLUMNS))}")
    for objective in OBJECTIVES:
        for system in SYSTEMS:
            folders = sorted(output.glob(f"{objective}-{system}-seed*"))
            rows = [row_of(folder) for folder in folders if (folder / LINEAR).exists()]
            if rows:
                cells = [cell([row[column] for row in rows if column in row], column) for column in COLUMNS]
                print(f"| {objective} | {system} | {len(rows)} | {' | '.join(cells)} |")


def cell(values: Sequence[float], column: str) -> str:
    """The mean of values, and their standard deviation if there are several; nothing if there are none."""
    if not values:
        return ""
    digits = {"paid": 4, "rank": 1}.get(column, 2)
    deviation = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.{digits}f}{deviation}"


def unknown(names: Iterable[str]) -> list[str]:
    """The objectives that are not installed."""
    return [name for name in names if not ssl_dc.registry().has("objective", name)]


def main() -> None:
    """Make the runs that are missing, and show all that are there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="folder of all runs")
    parser.add_argument("--data-root", type=Path, help="folder with train.parquet and test.parquet")
    parser.add_argument("--objectives", nargs="+", choices=list(OBJECTIVES), default=list(OBJECTIVES))
    parser.add_argument("--systems", nargs="+", choices=list(SYSTEMS), default=list(SYSTEMS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--limit", type=int, default=10000, help="training images")
    parser.add_argument("--test-limit", type=int, default=2000, help="held-out images")
    parser.add_argument("--workers", type=int, default=1, help="processes that prepare images")
    parser.add_argument("--show", action="store_true", help="only print the table")
    arguments = parser.parse_args()
    if not arguments.show:
        if arguments.data_root is None:
            parser.error("--data-root is needed to train")
        if missing := unknown(arguments.objectives):
            parser.error(f"not installed: {', '.join(missing)}; the plugins stand in plugins/")
        try:
            tasks = tasks_of(arguments)
            for task in tasks:
                task.check()
                work([task], arguments.output)
                evaluate(task.folder)
        except SslDcError as error:
            parser.exit(error.exit_status, f"{error}\n")
    show(arguments.output)


if __name__ == "__main__":
    main()
