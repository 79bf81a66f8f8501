"""What a run has written down so far, read without its model and its images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ssl_dc.config import RunConfig
from ssl_dc.run_folder import RunFolder
from ssl_dc.run_lock import is_held
from ssl_dc.run_records import JsonLines, LoggedStep, json_lines, json_object, logged_steps, result_faults
from ssl_dc.runs import Run
from ssl_dc.training.checkpoint import CheckpointStore

RunLike = str | Path | Run
"""A run: its folder, or the run itself."""


@dataclass(frozen=True)
class RecordedRun:
    """The files of a run, whether its training has ended or not.

    Attributes:
        folder: The run's folder.
        label: What the run is called in a report.
        config: Its config.
        metrics: The logged steps, in order.
        result: ``result.json``; None if the run has none, or something else is in the file.
        begun: The last line of ``history.jsonl``: the newest start of the training; empty if there is none.
        trains: Whether a process trains in the folder now.
        damage: A sentence for each file that has damaged lines, which are left out. Empty for a run that trains: its last
            line may be in the writing.
    """

    folder: RunFolder
    label: str
    config: RunConfig
    metrics: Sequence[LoggedStep]
    result: Mapping[str, Any] | None
    begun: Mapping[str, Any]
    trains: bool
    damage: Sequence[str] = ()

    @property
    def state(self) -> str:
        """How far the training has come, in a sentence or two."""
        step = int(self.metrics[-1]["step"]) if self.metrics else 0
        total = self.begun.get("total_steps")
        reached = f"step {step:,}" + (f" of {total:,}" if isinstance(total, int) else "")
        if self.trains:
            return f"The run trains now. The last logged step is {reached}."
        if self.result is not None:
            return f"The training has ended, at {reached}."
        if self.lost_result:
            return f"The run has a trained model, and the last logged step is {reached}, but {self.lost_result}"
        return (
            f"The training was interrupted. The last logged step is {reached}. It goes on with:"
            f" ssl-dc train --resume {self.folder.path}"
        )

    @property
    def lost_result(self) -> str:
        """What is wrong with the result of a run that was trained to its end, in words; empty if nothing is."""
        file = self.folder.result_file
        if self.trains or self.result is not None or not (self.folder.model_file.is_file() or file.is_file()):
            return ""
        wrong = "is damaged: it does not hold a JSON object" if file.is_file() else "is not there"
        return f"{file} {wrong}.{self._way_back_to_the_result}"

    @property
    def _way_back_to_the_result(self) -> str:
        if CheckpointStore(self.folder.checkpoints).newest() is None:
            return ""
        return f" This evaluates the model and writes it: ssl-dc train --resume {self.folder.path}"

    @property
    def damaged_result(self) -> str:
        """Which fields of the result are damaged, in a sentence; empty if none is. Tables show them as ``-``."""
        faults = result_faults(self.result or {})
        if not faults:
            return ""
        return (
            f"{self.folder.result_file} is damaged: {'; '.join(faults)}. What cannot be read is shown as '-' or left out."
            f"{self._way_back_to_the_result}"
        )

    @property
    def routes(self) -> Mapping[str, Mapping[str, Any]]:
        """What each route reaches and costs, as ``result.json`` says; empty if there is none."""
        routes = (self.result or {}).get("routes")
        found = routes.items() if isinstance(routes, dict) else ()
        return {route: reached for route, reached in found if isinstance(reached, dict)}

    def sentences(self, name: str) -> list[str]:
        """The ``findings``, or the ``advice``, of ``result.json``."""
        found = (self.result or {}).get(name)
        return [text for text in found if isinstance(text, str)] if isinstance(found, list) else []


def recorded_runs(runs: RunLike | Sequence[RunLike]) -> list[RecordedRun]:
    """Read the files of runs.

    Raises:
        ConfigError: If there is no run in a folder, or its config is not valid.
        RunError: If a file of a run cannot be read.
    """
    given = [runs] if isinstance(runs, (str, Path, Run)) else list(runs)
    folders = [run.folder if isinstance(run, Run) else Path(run) for run in given]
    found = [RunFolder.existing(folder) for folder in folders]
    return [_recorded(folder, label) for folder, label in zip(found, _labels(folders), strict=True)]


def _labels(folders: Sequence[Path]) -> list[str]:
    """The names of the folders; the whole paths of those whose names are the same."""
    names = [folder.resolve().name for folder in folders]
    return [name if names.count(name) == 1 else str(folder) for name, folder in zip(names, folders, strict=True)]


def _recorded(folder: RunFolder, label: str) -> RecordedRun:
    trains = is_held(folder.path)  # before the result is read: a run that ends in this moment counts as one that trains
    history, metrics = json_lines(folder.history_file), json_lines(folder.metrics_file)
    files = {folder.history_file: history, folder.metrics_file: metrics}
    return RecordedRun(
        folder=folder,
        label=label,
        config=folder.config_of_network(),
        metrics=logged_steps(metrics),
        result=json_object(folder.result_file),
        begun=history.objects[-1] if history.objects else {},
        trains=trains,
        damage=() if trains else [_damage(file, lines) for file, lines in files.items() if lines.damaged],
    )


def _damage(file: Path, lines: JsonLines) -> str:
    """Which lines of a file are damaged, in a sentence."""
    if list(lines.damaged) == [lines.total]:
        return f"{file}: the last line, {lines.total}, was written only in part and is left out."
    more = f" and {len(lines.damaged) - 1} more" if len(lines.damaged) > 1 else ""
    return f"{file}: line {lines.damaged[0]}{more} of {lines.total} hold no JSON object and are left out."
