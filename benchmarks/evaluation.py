"""kNN and linear evaluation: ours beside scikit-learn's brute force and beside a plain loop; time and peak memory.

    python benchmarks/evaluation.py [--train 50000] [--test 10000] [--width 512] [--classes 10] [--rounds 3]
                                    [--device cuda] [--json FILE]

Features are made, not taken from a network: of each class about a centre of its own, rectified, as those of a ResNet are.
Each measurement has a process of its own, which makes the features first. The ways take turns, and a time is the median
over rounds. Memory is the peak above what the process holds with the features made. The plain loop (one classifier at a
time, by torch's own layer, loss and optimiser) runs for --plain-epochs epochs, and its time is scaled to --epochs.
"""

from __future__ import annotations

import argparse
import gc
import json
import multiprocessing
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from ssl_dc.evaluation.features import Features
from ssl_dc.evaluation.knn import knn_predictions
from ssl_dc.evaluation.linear import score_linear
from ssl_dc.evaluation.scores import FeatureSets
from ssl_dc.routes import Route

sys.path.append(str(Path(__file__).parent.parent / "tests"))
from helpers.plain_linear import PlainClassifier  # what the tests hold the product to


class Task(NamedTuple):
    """What is measured."""

    train: int
    test: int
    width: int
    classes: int
    seeds: int
    epochs: int
    plain_epochs: int
    device: str
    threads: int


def made_features(task: Task) -> FeatureSets:
    """Features of both routes and splits; the gated route's have more noise."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(task.classes, task.width))
    labels = [rng.integers(0, task.classes, count) for count in (task.train, task.test)]

    def some(split: int, noise: float) -> Features:
        count = len(labels[split])
        values = rng.standard_normal((count, task.width), dtype=np.float32)
        values *= noise
        values += centres[labels[split]].astype(np.float32)
        return Features(np.maximum(values, 0, out=values), np.ones(count), {})

    train, test = ({Route.DENSE: some(split, 4.0), Route.GATED: some(split, 5.0)} for split in (0, 1))
    return FeatureSets(train, test, *labels, task.classes, 1, torch.device(task.device))


def knn_ours(sets: FeatureSets, task: Task) -> dict[str, Any]:
    """The predictions of the dense route."""
    found = knn_predictions(
        sets.train[Route.DENSE].features,
        sets.train_labels,
        sets.test[Route.DENSE].features,
        device=torch.device(task.device),
    )
    return {"right": int((found == sets.test_labels).sum())}


def knn_sklearn(sets: FeatureSets, task: Task) -> dict[str, Any]:  # noqa: ARG001  # always on the CPU
    """The same by scikit-learn."""
    from sklearn.neighbors import KNeighborsClassifier

    classifier = KNeighborsClassifier(n_neighbors=1, algorithm="brute")
    classifier.fit(sets.train[Route.DENSE].features, sets.train_labels)
    found = classifier.predict(sets.test[Route.DENSE].features)
    return {"right": int((found == sets.test_labels).sum())}


def linear_ours(sets: FeatureSets, task: Task) -> dict[str, Any]:
    """Both routes, all seeds and epochs."""
    scores = score_linear(sets, seeds=task.seeds, epochs=task.epochs).routes
    return {"top1": {str(route): round(score.top1, 3) for route, score in scores.items()}}


def linear_plain(sets: FeatureSets, task: Task) -> dict[str, Any]:
    """Both routes and all seeds, one after the other, for some epochs of a training of all."""
    for route in sets.train:
        for seed in range(task.seeds):
            classifier = PlainClassifier(task.width, task.classes, seed=seed, epochs=task.epochs)
            for _ in range(task.plain_epochs):
                classifier.epoch(sets.train[route].features, sets.train_labels)
    return {}


WAYS: Mapping[str, Callable[[FeatureSets, Task], dict[str, Any]]] = {
    "kNN, ours": knn_ours,
    "kNN, scikit-learn": knn_sklearn,
    "linear, ours": linear_ours,
    "linear, plain loop": linear_plain,
}
BESIDE = {"kNN, ours": "kNN, scikit-learn", "linear, ours": "linear, plain loop"}


def measured(way: str, task: Task) -> dict[str, Any]:
    """Seconds, peak memory above the features, and the answer of one way, in a process of its own."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_measure, args=(there, way, task))
    process.start()
    there.close()
    answer: dict[str, Any] = here.recv()
    process.join()
    return answer


def _measure(line: Connection, way: str, task: Task) -> None:
    torch.set_num_threads(task.threads)
    sets = made_features(task)
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew: to make the features took more than they are
    before = _mebibytes("VmRSS")
    start = time.perf_counter()
    answer = WAYS[way](sets, task)
    seconds = time.perf_counter() - start
    peak = _mebibytes("VmHWM") - before
    scale = task.epochs / task.plain_epochs if way == "linear, plain loop" else 1.0
    line.send({"seconds": seconds * scale, "mebibytes": peak, **answer})


def _mebibytes(kind: str) -> float:
    """Memory of this process as Linux counts it: VmRSS is what it holds, VmHWM the most that it has held."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(f"{kind}:"))
    return int(line.split()[1]) / 1024


def main() -> None:
    """Measure, print, keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", type=int, default=50_000, help="Features to learn from.")
    parser.add_argument("--test", type=int, default=10_000, help="Held-out features.")
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--plain-epochs", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--way", choices=tuple(WAYS), action="append", help="Only this; may be given again.")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    task = Task(**{name: getattr(options, name) for name in Task._fields})
    rounds: dict[str, list[dict[str, Any]]] = {way: [] for way in options.way or WAYS}
    for _ in range(options.rounds):
        for way, some in rounds.items():
            some.append(measured(way, task))
    seconds = {way: statistics.median(each["seconds"] for each in some) for way, some in rounds.items()}
    print(
        f"{task.train:,} + {task.test:,} features of width {task.width}, {task.classes} classes; {task.seeds} seeds,"
        f" {task.epochs} epochs, both routes; {task.threads} threads, {task.device}; median of {options.rounds} rounds\n"
    )
    print("| way | seconds | peak MiB above the features | times faster | result |")
    print("| --- | ---: | ---: | ---: | --- |")
    for way, some in rounds.items():
        other = BESIDE.get(way)
        faster = f"{seconds[other] / seconds[way]:.2f}" if other in seconds else ""
        result = "; ".join(f"{key} {value}" for key, value in some[0].items() if key not in ("seconds", "mebibytes"))
        peak = max(each["mebibytes"] for each in some)
        print(f"| {way} | {seconds[way]:.2f} | {peak:,.0f} | {faster} | {result} |")
    if options.json:
        options.json.write_text(json.dumps({"task": task._asdict(), "ways": rounds}, indent=1) + "\n")


if __name__ == "__main__":
    main()
