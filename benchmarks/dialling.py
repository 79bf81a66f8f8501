"""One compiled executor at many budgets: is it right at each, and does it keep a deadline while the machine's load changes?

    python benchmarks/dialling.py RUN [--budgets 200] [--calls 20000] [--target 0.3] [--json FILE]

RUN was trained for several budgets (``ssl-dc train --budget 0.1:0.9``). First the executor is called at budgets drawn at
random, on held-out images, and its features are compared with those of the network in torch. What it compiles is counted.
Then the change to another budget is timed, for a new budget and for one that was used before.

Last :class:`ssl_dc.Deadline` calls the executor with one image after another, on one thread. In turn the machine is left
alone, one other process works all the time, and as many as there are cores. In each part these calls take turns with calls
at the least and at the largest budget. The 90th percentiles of the latter are the ends of what can be asked for: no budget
keeps a shorter deadline, and every budget keeps a longer one. By default the deadline lies in the middle (by ratio) between
the least budget beside one other process and the dense network alone, or the largest budget alone if that is faster. For
each part the 90th percentile of the settled calls is told, which are those of the last three quarters. It is to be within
a tenth of the deadline.
"""

from __future__ import annotations

import argparse
import json
import math
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

LEAST, LARGEST = 0.1, 0.9
"""The ends of the budgets."""
WITHIN = 0.1
"""How far from the deadline the 90th percentile may be, as a share of it."""
ROUNDS = 8
"""How often calls of several kinds take turns in a part."""
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
        for budget in map(float, draw.uniform(LEAST, LARGEST, budgets)):
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


def turning(model: ssl_dc.Model) -> dict[str, float]:
    """Median milliseconds of a change to a budget that is new to the executor, and to one that it has used before."""
    executor = model.compile_gated(backend="native")
    budgets = np.linspace(LEAST, LARGEST, 200).tolist()

    def median() -> float:
        return float(np.median([milliseconds(lambda budget=budget: executor.prepare([budget])) for budget in budgets]))

    return {"new": median(), "used before": median()}


def milliseconds(call: Callable[[], object]) -> float:
    """How long a call takes."""
    start = time.perf_counter()
    call()
    return 1000 * (time.perf_counter() - start)


def work() -> None:
    """Compute on more memory than the caches hold, until the parent ends it."""
    numbers = np.ones(2**23)
    while True:
        numbers *= 1.0000001


@contextmanager
def load(processes: int) -> Iterator[None]:
    """Other processes that work all the time."""
    working = [multiprocessing.Process(target=work, daemon=True) for _ in range(processes)]
    for each in working:
        each.start()
    try:
        yield
    finally:
        for each in working:
            each.terminate()
            each.join()


class Calls:
    """Calls with one image after another, in several ways that take turns.

    Args:
        ways: What takes an image (1, 3, H, W), by name.
        images: (N, 3, H, W).
    """

    def __init__(self, ways: dict[str, Callable[[Tensor], object]], images: Tensor) -> None:
        self._ways, self._images = ways, images.split(1)

    def p90(self, counts: dict[str, int]) -> dict[str, float]:
        """The 90th percentile of the milliseconds of each way's settled calls, of so many calls of each."""
        took: dict[str, list[float]] = {name: [] for name in self._ways}
        for _ in range(ROUNDS):
            for name, way in self._ways.items():
                for _ in range(counts[name] // ROUNDS):
                    image = self._images[len(took[name]) % len(self._images)]
                    took[name].append(milliseconds(lambda way=way, image=image: way(image)))
        return {name: float(np.percentile(times[int(SETTLED * len(times)) :], 90)) for name, times in took.items()}


def under_load(model: ssl_dc.Model, images: Tensor, calls: int, target: float | None) -> dict[str, Any]:
    """The 90th percentile of the settled calls in each part of the run, beside those of the ends of the budget."""
    executor, dense = (make(threads=1, backend="native") for make in (model.compile_gated, model.compile_dense))
    fixed: dict[str, Callable[[Tensor], object]] = {
        "least": lambda image: executor(image, LEAST),
        "largest": lambda image: executor(image, LARGEST),
    }
    few = {"least": calls // 4, "largest": calls // 4, "dense": calls // 4, "held": calls}
    alone = Calls({**fixed, "dense": dense}, images).p90(few)
    with load(1):
        beside_one = Calls(fixed, images).p90(few)
    between = math.sqrt(beside_one["least"] * min(alone["largest"], alone["dense"]))
    deadline = between if target is None else target
    held = ssl_dc.Deadline(executor, deadline, least=LEAST, largest=LARGEST)
    parts = []
    for processes in 2 * sorted({0, 1, os.cpu_count() or 1}):
        with load(processes):
            found = Calls({"held": held, **fixed}, images).p90(few)
        parts.append({"other processes": processes, **told(found, deadline), "budget at the end": held.budget})
    return {"deadline ms": deadline, "p90 ms alone": alone, "p90 ms beside one": beside_one, "parts": parts}


def told(found: dict[str, float], deadline: float) -> dict[str, Any]:
    """A part of the run: its 90th percentiles, and whether the deadline was kept, or could not be."""
    if abs(found["held"] / deadline - 1) <= WITHIN:
        verdict = "kept"
    elif found["least"] > deadline:
        verdict = "out of reach: the least budget takes longer"
    elif found["largest"] < deadline:
        verdict = "time left over: the largest budget takes less"
    else:
        verdict = "missed"
    return {"p90 ms": found, "of the deadline": found["held"] / deadline, "verdict": verdict}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--budgets", type=int, default=200)
    parser.add_argument("--images", type=int, default=16, help="held-out images at each budget")
    parser.add_argument("--calls", type=int, default=20000, help="calls in each part")
    parser.add_argument("--target", type=float, help="the deadline in milliseconds")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    model = ssl_dc.load(options.run)
    images = held_out(model, options.images)
    before = os.getloadavg()
    result = {
        "budgets": at_many_budgets(model, images, options.budgets),
        "change of budget, ms": turning(model),
        "deadline": under_load(model, images, options.calls, options.target),
        "load of the machine before and after": [before[0], os.getloadavg()[0]],
    }
    print(json.dumps(result, indent=1))
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
