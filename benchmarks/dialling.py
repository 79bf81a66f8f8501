"""One compiled executor at many budgets: is it right at each, and does it keep a deadline while the machine's load changes?

    python benchmarks/dialling.py RUN [--budgets 200] [--calls 2000] [--json FILE]

RUN was trained for several budgets (``ssl-dc train --budget 0.1:0.9``). First the executor is called at budgets drawn at
random, on held-out images, and its features are compared with those of the network in torch. What it compiles is counted.

Then :class:`ssl_dc.Deadline` calls it with one image after another, on one thread. In turn the machine is quiet, and
another program keeps all cores busy. The deadline is twice what a call at the middle budget takes on the quiet machine.
For each part the 90th percentile of the settled calls is told: those of the last three quarters.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import ssl_dc
import ssl_dc.compiled.native_backend as native_backend
from ssl_dc.evaluation.scores import own_splits

SETTLED = 0.25
"""Share of the calls of a part that are not counted: in them the budget moves to its new place."""


def held_out(model: ssl_dc.Model, count: int) -> Tensor:
    """The first held-out images of the run's data set, (N, 3, H, W)."""
    images = own_splits(model).test
    return torch.stack([model.transform(images.image(number)) for number in range(min(count, len(images)))])


@contextmanager
def compilations() -> Iterator[list[str]]:
    """The names of all that the executor's backend builds meanwhile: layouts of weights and programs."""
    built: list[str] = []
    originals = {name: getattr(native_backend, name) for name in ("Weights", "NativeProgram")}

    def counted(name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def build(*words: Any) -> Any:
            built.append(name)
            return original(*words)

        return build

    for name, original in originals.items():
        setattr(native_backend, name, counted(name, original))
    try:
        yield built
    finally:
        for name, original in originals.items():
            setattr(native_backend, name, original)


def at_many_budgets(model: ssl_dc.Model, images: Tensor, budgets: int) -> dict[str, Any]:
    """The largest differences from the network in torch over budgets drawn at random, and what was built later on."""
    draw = np.random.default_rng(0)
    features, costs = [], []
    with compilations() as built:
        executor = model.compile_gated(backend="native")
        executor(images)
        at_first = len(built)
        for budget in map(float, draw.uniform(0.1, 0.9, budgets)):
            found, expected = executor(images, budget), model.gated(images, budget)
            features.append((found.features - expected.features).abs().max().item())
            costs.append((found.ratio - expected.ratio).abs().max().item())
    return {
        "budgets": budgets,
        "images": len(images),
        "largest difference of a feature": max(features),
        "largest difference of a cost": max(costs),
        "built by the first call": at_first,
        "built later": len(built) - at_first,
    }


def spin() -> None:
    """Work until the parent ends it."""
    while True:
        pass


@contextmanager
def load(processes: int) -> Iterator[None]:
    """Other processes that work all the time."""
    spinning = [multiprocessing.Process(target=spin, daemon=True) for _ in range(processes)]
    for each in spinning:
        each.start()
    try:
        yield
    finally:
        for each in spinning:
            each.terminate()
            each.join()


def timed(call: Callable[[Tensor], object], images: Tensor, calls: int) -> np.ndarray:
    """Milliseconds of calls with one image each."""
    took = []
    for number in range(calls):
        start = time.perf_counter()
        call(images[number % len(images)][None])
        took.append(1000 * (time.perf_counter() - start))
    return np.array(took)


def under_load(model: ssl_dc.Model, images: Tensor, calls: int) -> dict[str, Any]:
    """The 90th percentile of settled calls in each part of the run, and the budgets that a deadline leads to."""
    executor = model.compile_gated(threads=1, backend="native")
    timed(lambda image: executor(image, 0.5), images, 200)
    deadline = 2 * float(np.percentile(timed(lambda image: executor(image, 0.5), images, 500), 90))
    held = ssl_dc.Deadline(executor, deadline, least=0.1, largest=0.9)
    parts = []
    for processes in (0, os.cpu_count() or 1, 0, os.cpu_count() or 1):
        with load(processes):
            settled = timed(held, images, calls)[int(SETTLED * calls) :]
        ninth = float(np.percentile(settled, 90))
        part = {"other processes": processes, "p90 ms": ninth, "of the deadline": ninth / deadline}
        parts.append({**part, "late": float((settled > deadline).mean()), "budget at the end": held.budget})
    return {"deadline ms": deadline, "calls of a part": calls, "parts": parts}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--budgets", type=int, default=200)
    parser.add_argument("--images", type=int, default=16, help="held-out images at each budget")
    parser.add_argument("--calls", type=int, default=2000, help="calls in each part")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    model = ssl_dc.load(options.run)
    images = held_out(model, options.images)
    result = {
        "budgets": at_many_budgets(model, images, options.budgets),
        "deadline": under_load(model, images, options.calls),
    }
    print(json.dumps(result, indent=1))
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
