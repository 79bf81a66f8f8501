"""An evaluation that two processes share gives what one process gives, to the bit, and fails in both if it fails in one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL.Image import Image

from helpers.command_line import done, run_in_two_processes
from ssl_dc.config import resolve, uniform_layer
from ssl_dc.data.base import Splits
from ssl_dc.data.digits import ArrayImages
from ssl_dc.errors import DataError
from ssl_dc.evaluation.features import Features, extract
from ssl_dc.evaluation.gate_statistics import gate_statistics
from ssl_dc.evaluation.knn import score_knn
from ssl_dc.evaluation.linear import score_linear, score_linear_augmented
from ssl_dc.evaluation.scores import extract_splits
from ssl_dc.model import Model
from ssl_dc.routes import Route
from ssl_dc.run_folder import RunFolder
from ssl_dc.testing import ConformanceError
from ssl_dc.testing.two_processes import in_two_processes

SETTINGS = {"backbone.width": 4, "data.image_size": 8, "objective.expander_width": 16, "training.workers": 0}


class Broken(ArrayImages):
    """Images of which one cannot be read."""

    def image(self, index: int) -> Image:
        if index == 300:
            raise DataError("image 300 cannot be read")
        return super().image(index)


def images(n: int, seed: int = 0, kind: type[ArrayImages] = ArrayImages) -> ArrayImages:
    rng = np.random.default_rng(seed)
    return kind(rng.integers(0, 255, (n, 8, 8, 3), dtype=np.uint8), rng.integers(0, 3, n))


def model() -> Model:
    return Model.untrained(resolve([uniform_layer(SETTINGS, "test")]).config)


def plain(found: dict[Route, Features]) -> dict[str, Any]:
    return {str(route): (some.features, some.macs, some.masks if route.gated else None) for route, some in found.items()}


def evaluated(n: int, rank: int = 0) -> dict[str, Any]:
    """Everything that is evaluated, of n images to learn from: more batches than processes, or fewer."""
    del rank
    some, splits = model(), Splits(images(n), images(n), images(n // 2, seed=1), ("a", "b", "c"))
    found = extract(some, splits.test, some.routes, batch_size=64, keep_masks=True)
    sets = extract_splits(some, splits)
    labels = splits.test.labels
    assert labels is not None
    return {
        "features": plain(found),
        "train": plain(sets.train),
        "knn": score_knn(sets, k=3).as_json(),
        "cosine": score_knn(sets, k=3, metric="cosine").as_json(),
        "linear": score_linear(sets, seeds=2, epochs=2).as_json(),
        "augmented": score_linear_augmented(some, splits, seeds=1, epochs=1).as_json(),
        "gates": gate_statistics(found[Route.GATED].masks, labels, splits.classes).as_json(),
    }


def same(first: Any, second: Any) -> bool:
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(same(first[key], second[key]) for key in first)
    if isinstance(first, (tuple, list)):
        return len(first) == len(second) and all(map(same, first, second))
    return np.array_equal(first, second)


@pytest.mark.long
@pytest.mark.parametrize("n", [600, 100])
def test_two_processes_give_what_one_gives(n: int) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in the two processes: another number adds up in another order
    try:
        alone = evaluated(n)
    finally:
        torch.set_num_threads(threads)
    first, second = in_two_processes(evaluated, n)
    assert alone["features"]["gated"][0].shape == (n // 2, 32)
    assert same(alone, first)
    assert same(alone, second)


def images_read(rank: int) -> list[int]:
    """Which images a process reads."""
    del rank
    read: list[int] = []

    class Noted(ArrayImages):
        def image(self, index: int) -> Image:
            read.append(index)
            return super().image(index)

    extract(model(), images(600, kind=Noted), [Route.DENSE], batch_size=100)
    return read


def test_each_process_reads_its_own_images_alone() -> None:
    first, second = in_two_processes(images_read)
    assert len(first) == len(second) == 300
    assert sorted([*first, *second]) == list(range(600))


def told(rank: int) -> str:
    """What a process says of images of which the second process cannot read one."""
    del rank
    try:
        extract(model(), images(600, kind=Broken), [Route.DENSE], batch_size=100)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "nothing"


def test_what_fails_in_one_process_is_told_in_both() -> None:
    first, second = in_two_processes(told)
    assert first == "RunError: process 1 of 2 has failed: image 300 cannot be read"
    assert second == "DataError: image 300 cannot be read"


def test_the_two_processes_go_on_after_a_failure() -> None:
    assert in_two_processes(images_read)[0]
    with pytest.raises(ConformanceError):
        in_two_processes(evaluated, "no number")


@pytest.mark.slow
def test_the_command_under_torchrun_prints_once_what_one_process_prints(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "run", model().config)
    folder.save_model(model().encoder)
    words = ["evaluate", str(folder.path), "--protocol", "gates", "--json", "--output", str(tmp_path / "gates.png")]
    script = tmp_path / "evaluate.py"
    script.write_text("import sys\nfrom ssl_dc.cli import main\nmain(sys.argv[1:])\n")
    together = run_in_two_processes(script, *words)
    assert together.returncode == 0, together.stderr
    assert (tmp_path / "gates.png").read_bytes().startswith(b"\x89PNG")
    assert json.loads(together.stdout) == json.loads(done(*words))
