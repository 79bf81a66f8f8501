"""Train the runs that are missing, skip those that are done, and evaluate. It can be stopped and continued at any point."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ssl_dc import api
from ssl_dc.atomic_files import write_text
from ssl_dc.config.layers import flattened
from ssl_dc.errors import ConfigError
from ssl_dc.evaluation.scores import Evaluation
from ssl_dc.json_files import read_record
from ssl_dc.printable import name_of
from ssl_dc.reproduction.plan import PlannedRun, data_part
from ssl_dc.reproduction.systems import PaperMetric
from ssl_dc.trackers.base import StepMetrics, Watcher

LINEAR_SEEDS = 5


@dataclass(frozen=True)
class Measurement:
    """The results of one run.

    Attributes:
        run: The run.
        top1: Top-1 accuracy in percent of each route that it has.
        reduction: By how many percent the gated route is cheaper than the dense one, on the test set. None without gates.
    """

    run: PlannedRun
    top1: Mapping[str, float]
    reduction: float | None


@dataclass(frozen=True)
class Measure:
    """How a run is measured.

    Attributes:
        metric: The table's metric.
        to: The target data set of ``transfer``.
        to_root: Folder with the target's images.
    """

    metric: PaperMetric
    to: str | None = None
    to_root: Path | None = None

    @property
    def name(self) -> str:
        """The key of its results in the record. The folder of the data does not count."""
        return self.metric if self.to is None else f"{self.metric}-{self.to}"


class Store:
    """A folder of runs and their results.

    ``results/NAME.json`` contains the results. It is small and worth committing. ``runs/NAME`` is the run itself. It may be
    deleted once it is evaluated.

    Args:
        folder: The folder, which is made when needed.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def measure(
        self, run: PlannedRun, measure: Measure, watchers: Iterable[Watcher], say: Callable[[str], None]
    ) -> Measurement:
        """The results of a run by a measure. If they are not known, the run is trained and evaluated."""
        record = self._read(run)
        if measure.name not in record:
            path = self.trained(run, watchers, say)
            say(f"evaluate {run.name}: {measure.name}")
            record = {**self._read(run), measure.name: _evaluated(run, path, measure)}
            self._write(run, record)
        return _measurement(run, record[measure.name])

    def trained(self, run: PlannedRun, watchers: Iterable[Watcher], say: Callable[[str], None]) -> Path:
        """The folder of a run with its weights. The run is trained, or resumed, if it has none yet."""
        record = self._read(run)
        path = self._path(run)
        if not self.has_weights(run):
            speed = _Speed()
            self._train(run, path, [speed, *watchers], say)
            self._write(run, {**record, "images_per_second": speed.images_per_second})
        return path

    def has_weights(self, run: PlannedRun) -> bool:
        """Whether a run has been trained to its end and its folder is still there."""
        path = self._path(run)
        _check_same(run, path / "config.json", _read_json(path / "config.json"))
        return (path / "model.safetensors").is_file()

    def images_per_second(self, run: PlannedRun) -> float | None:
        """The speed at which a run was trained, if it is known."""
        speed: float | None = self._read(run).get("images_per_second")
        return speed

    def known(self, run: PlannedRun, measure: Measure) -> Measurement | None:
        """The results of a run, if they are known."""
        record = self._read(run)
        return _measurement(run, record[measure.name]) if measure.name in record else None

    def _train(self, run: PlannedRun, path: Path, watchers: Iterable[Watcher], say: Callable[[str], None]) -> None:
        if (path / "config.json").is_file():
            say(f"resume {run.name}")
            api.resume(path, watchers=list(watchers))
        else:
            say(f"train {run.name}")
            api.train(run.config, output=path, watchers=list(watchers))

    def _path(self, run: PlannedRun) -> Path:
        return self.folder / "runs" / run.name

    def _file(self, run: PlannedRun) -> Path:
        return self.folder / "results" / f"{run.name}.json"

    def _read(self, run: PlannedRun) -> dict[str, Any]:
        path = self._file(run)
        record = _read_json(path)
        _check_same(run, path, record.get("config", {}))
        return record

    def _write(self, run: PlannedRun, record: dict[str, Any]) -> None:
        config = run.config.model_dump(mode="json")
        config["data"]["root"] = None  # the place of the data on one machine is not part of a result
        path = self._file(run)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps({**record, "config": config}, indent=2) + "\n")


def _read_json(path: Path) -> dict[str, Any]:
    """The content of a JSON file, empty if the file does not exist."""
    if not path.is_file():
        return {}
    try:
        return read_record(path)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read: {name_of(str(error))}; delete it to repeat the run") from error


def _check_same(run: PlannedRun, path: Path, recorded: Mapping[str, Any]) -> None:
    """Refuse a record that has the run's name and other settings.

    Settings that only one of the two knows, and the folder of the data, do not count.

    Raises:
        ConfigError: If a setting differs. The message names it.
    """
    planned = flattened(run.config.model_dump(mode="json"))
    before = flattened(recorded)
    differ = [key for key in planned if key in before and before[key] != planned[key] and key != "data.root"]
    if differ:
        key = differ[0]
        raise ConfigError(
            f"{path} was made with other settings: {key} = {before[key]}, now {planned[key]}; name another --output"
        )


class _Speed(Watcher):
    """Records the speed of a training."""

    def __init__(self) -> None:
        self._seen: list[float] = []

    def on_step(self, metrics: StepMetrics) -> None:
        """Record a speed. The first report of a training has none yet."""
        if metrics.images_per_second > 0:
            self._seen.append(metrics.images_per_second)

    @property
    def images_per_second(self) -> float | None:
        """The median over the reports, None if there was none."""
        return round(statistics.median(self._seen), 1) if self._seen else None


def _evaluated(run: PlannedRun, path: Path, measure: Measure) -> dict[str, Any]:
    evaluation: Evaluation
    if measure.to is not None:
        data = run.config.data  # a small run transfers to as many images as it is trained on
        evaluation = api.evaluate(
            path,
            "transfer",
            to=data_part(measure.to, measure.to_root),
            to_root=measure.to_root,
            to_limit=data.limit,
            to_set={} if data.test_limit is None else {"test_limit": data.test_limit},
            seeds=LINEAR_SEEDS,
        )
    elif measure.metric == "knn1":
        evaluation = api.evaluate(path, "knn")
    else:
        evaluation = api.evaluate(path, "linear", seeds=LINEAR_SEEDS)
    return {
        str(route): {"top1": score.top1, "std_over_classifiers": score.std, "ratio": score.ratio}
        for route, score in evaluation.routes.items()
    }


def _measurement(run: PlannedRun, routes: Mapping[str, Mapping[str, float]]) -> Measurement:
    reduction = 100 * (1 - routes["gated"]["ratio"]) if "gated" in routes else None
    return Measurement(run, {route: reached["top1"] for route, reached in routes.items()}, reduction)
